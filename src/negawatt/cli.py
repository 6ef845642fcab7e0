import click
from pathlib import Path
@click.group()
def main(): pass
@main.command()
@click.option("--config", type=click.Path(path_type=Path))
@click.option("--host")
@click.option("--port", type=int)
def serve(config, host, port):
    import msgspec
    from negawatt.config import load_config
    from negawatt.serving import serve as run
    c = load_config(config)
    ch={k:v for k,v in (("host",host),("port",port)) if v is not None}
    c = msgspec.structs.replace(c, server=msgspec.structs.replace(c.server, **ch))
    run(c, click.echo)
