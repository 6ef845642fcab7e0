"""negawatt: a gateway for language models that saves money, tokens, time and energy, and proves it by replay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from negawatt.config import Config, load_config
    from negawatt.gateway import Gateway
    from negawatt.layering import LayerCache, cached
    from negawatt.prompts import load_prompts, render

__version__ = "0.1.0"
__all__ = ["Config", "Gateway", "LayerCache", "__version__", "cached", "load_config", "load_prompts", "render"]

_HOMES = {
    "Gateway": "negawatt.gateway", "Config": "negawatt.config", "load_config": "negawatt.config",
    "LayerCache": "negawatt.layering", "cached": "negawatt.layering",
    "load_prompts": "negawatt.prompts", "render": "negawatt.prompts",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the library's few public names on first use: ``import negawatt`` alone costs next to nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'negawatt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
