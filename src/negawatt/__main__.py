"""``python -m negawatt`` is the command ``negawatt``."""

from negawatt.cli import main

main()
