"""Prompt templates, as surfaces: each with the blocks that it includes, in the order in which they are sent."""

from __future__ import annotations

from pathlib import Path

from negawatt.checks.plan import Group, Plan
from negawatt.checks.surfaces import Block, Hole, Surface, read_text
from negawatt.prompts import load_prompts
from negawatt.prompts.template import PARTS, BlockSource, Insertion, Template


def templates(plan: Plan, group: Group, where: str) -> list[Surface]:
    """Return the templates in the folder that *group* names. Raises `ConfigError`: ``file:line: what is wrong``."""
    folder = plan.folder / str(group.templates)
    if not folder.is_dir():
        raise plan.refused(where, f"there is no folder {group.templates!r}")
    found = [_surface(plan, group, template) for template in load_prompts(folder)]
    if not found:
        raise plan.refused(where, f"there is no template in {group.templates!r}")
    return found


def _surface(plan: Plan, group: Group, template: Template) -> Surface:
    name = plan.relative(Path(template.path))
    sent = sorted(template.blocks, key=lambda block: PARTS.index(block.part))
    blocks = tuple(_block(plan, name, source) for source in sent)
    return Surface(name, "template", name, 1, blocks, group, template=template.name)


def _block(plan: Plan, name: str, source: BlockSource) -> Block:
    """Return *source* with a hole for each variable, and one at its beginning where it is not always sent."""
    path = Path(source.path)
    lines = read_text(path).splitlines()[source.line - 1 :]
    holes = [Hole(0, f"when {condition.text}", source.line) for condition in source.when]
    text = ""
    for piece in source.pieces:
        if isinstance(piece, Insertion):
            line = next((at for at, one in enumerate(lines, source.line) if _names(one, piece.name)), source.line)
            holes.append(Hole(len(text), piece.name, line))
        else:
            text += piece
    shown = plan.relative(path)
    return Block(
        source.name, text, source.line, "\n".join(lines), tuple(holes), None if shown == name else shown,
        stable=source.part == "base",
    )  # fmt: skip


def _names(line: str, variable: str) -> bool:
    return f"{{{{{variable}}}}}" in line.replace(" ", "")
