"""Prompt templates, as surfaces."""

from __future__ import annotations

from pathlib import Path

from negawatt.checks.holes import cut
from negawatt.checks.plan import Group, Plan
from negawatt.checks.surfaces import Block, Surface, read_text

_ENDS = (".md", ".toml", ".txt", ".jinja", ".j2")


def templates(plan: Plan, group: Group, where: str) -> list[Surface]:
    """Return the templates in the folder that *group* names. Raises `ConfigError` and `InputError`."""
    folder = plan.folder / str(group.templates)
    if not folder.is_dir():
        raise plan.refused(where, f"there is no folder {group.templates!r}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _ENDS and path.is_file())
    if not paths:
        raise plan.refused(where, f"there is no template in {group.templates!r} ({', '.join(_ENDS)})")
    found = []
    for path in paths:
        name = plan.relative(path)
        found.append(Surface(name, "template", name, 1, blocks_of(path), group))
    return found


def blocks_of(path: Path) -> tuple[Block, ...]:
    """Return the blocks of the template in *path*."""
    source = read_text(path)
    text, holes = cut(source)
    return (Block("text", text, 1, source, holes),)
