"""The user's own tokenizers: files ``tokenizer.json`` as Hugging Face publishes them, for the models that they name.

    [[economics.tokenizers]]
    models = "llama-3*"
    file = "llama-3/tokenizer.json"

They need ``negawatt[tokenizers]``. They are read when the gateway opens, so that a bad one is refused there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from negawatt.economics.counting_models import Tokenize
from negawatt.economics.tables import matches, plain_name
from negawatt.errors import ConfigError


class TokenizerRow(Protocol):
    """One ``[[economics.tokenizers]]`` of the configuration."""

    @property
    def models(self) -> str | Sequence[str]: ...

    @property
    def file(self) -> str: ...


class TokenizerFiles:
    """Opens the files of *rows*. Raises `ConfigError` that names the field and the file."""

    def __init__(self, rows: Sequence[TokenizerRow] = ()) -> None:
        opened: dict[str, Tokenize] = {}
        self._rows: list[tuple[str | Sequence[str], Tokenize]] = []
        for i, row in enumerate(rows):
            where = f"economics.tokenizers[{i}]"
            if not all(row.models) or not row.models:  # an empty pattern names no model
                raise ConfigError(f"{where}.models: expected a pattern, or several", param=f"{where}.models")
            if row.file not in opened:
                opened[row.file] = _open(row.file, f"{where}.file")
            self._rows.append((row.models, opened[row.file]))

    def of(self, model: str) -> Tokenize | None:
        """Return the tokenizer of the first row that names *model*, as it stands or in its plain form."""
        if not self._rows:
            return None
        names = (model.lower(), plain_name(model))
        return next((found for models, found in self._rows if any(matches(name, models) for name in names)), None)


def _open(file: str, where: str) -> Tokenize:
    if not Path(file).is_file():
        raise ConfigError(f"{where}: {file}: there is no such file", param=where)
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigError(f"{where}: needs the extra: pip install 'negawatt[tokenizers]'", param=where) from error
    try:
        tokenizer: Any = Tokenizer.from_file(file)
    except Exception as error:  # the library raises nothing narrower
        raise ConfigError(f"{where}: {file}: not a tokenizer.json: {error}", param=where) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return lambda text: len(tokenizer.encode(_sound(text), add_special_tokens=False))


def _sound(text: str) -> str:
    """Return *text* without half surrogate pairs, which JSON may contain and UTF-8 may not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
