"""Prompt templates in a folder: read and checked when opened, rendered by name.

prompts = load_prompts(Path("prompts"))
rendered = prompts.render("support", {"question": "Where is my order?"})
rendered.messages      # of Chat Completions: base instructions, then context and task
"""

from __future__ import annotations

from negawatt.prompts.reading import load_prompts, render
from negawatt.prompts.template import Block, Prompts, Rendered, Template

__all__ = ["Block", "Prompts", "Rendered", "Template", "load_prompts", "render"]
