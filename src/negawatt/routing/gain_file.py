"""A fitted router in one file: arrays (npz), and beside them a header in JSON. Nothing in it can run.

The header holds the format, the card of the model and the SHA-256 of the arrays: a file that was cut off, changed, or
made by something else is refused, and so is one whose numbers do not fit together.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from negawatt.errors import ConfigError
from negawatt.routing import prompt_features
from negawatt.routing.gain import Calibration, Card, GainModel
from negawatt.routing.kernel import Block, Shape
from negawatt.routing.linear import Linear
from negawatt.routing.process import Process

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.float64] | NDArray[np.float32]]

FORMAT = 1
_MADE_BY = "negawatt.routing.gain"
_HEADER = "header"
_BESIDE = "beside_"
_MOST_BYTES = 1 << 30
_REMEDY = "fit it again with `negawatt eval`"


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    made_by: str
    format: int
    features: tuple[str, ...]  # names, so that a router is not used with other features than it learned from
    embedder: str
    dimensions: int
    extra: int
    candidates: tuple[str, ...]
    date: str
    rows: int
    digest: str
    weight: float
    width: float
    unfamiliar: float
    sha256: str


def save(model: GainModel, path: Path, beside: Arrays | None = None) -> None:
    """Write *model* to *path*: the whole file, or, whatever happens, the one that was there before.

    *beside*: arrays of numbers that belong to it, for `load_with`.
    """
    import numpy as np

    arrays = _arrays(model) | {f"{_BESIDE}{name}": array for name, array in (beside or {}).items()}
    header = _Header(
        made_by=_MADE_BY, format=FORMAT, features=prompt_features.NAMES, embedder=model.card.embedder,
        dimensions=model.dimensions, extra=_extra(model), candidates=model.card.candidates, date=model.card.date,
        rows=model.card.rows, digest=model.card.digest, weight=model.process.shape.weight,
        width=model.process.shape.width, unfamiliar=model.unfamiliar, sha256=_sha256(arrays),
    )  # fmt: skip
    buffer = io.BytesIO()
    text = np.frombuffer(msgspec.json.encode(header), np.uint8)
    np.savez(buffer, **{_HEADER: text}, **arrays)  # type: ignore[arg-type]
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(buffer.getvalue())
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load(path: Path, where: str = "router") -> GainModel:
    """Return the model in the file *path*. Raises `ConfigError`, which names *where*, the file and the remedy."""
    return load_with(path, where)[0]


def load_with(path: Path, where: str = "router") -> tuple[GainModel, Arrays]:
    """Return the model in the file *path*, and what was saved beside it. Raises `ConfigError`, as `load`."""
    import numpy as np

    def refused(why: str) -> ConfigError:
        return ConfigError(f"{where}: {path}: {why}; {_REMEDY}", param=where)

    try:
        if path.stat().st_size > _MOST_BYTES:
            raise refused("too large for a router")
        with np.load(path, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except OSError as error:
        raise refused(error.strerror or "it cannot be read") from error
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile, NotImplementedError, AttributeError) as error:
        raise refused("this is no router, or it is damaged") from error
    try:
        header = msgspec.json.decode(found.pop(_HEADER).tobytes(), type=_Header)
    except (KeyError, msgspec.MsgspecError) as error:
        raise refused("this is no router, or it is damaged") from error
    if header.made_by != _MADE_BY or header.format != FORMAT:
        raise refused(f"it has format {header.format}, and this version reads format {FORMAT}")
    if header.features != prompt_features.NAMES:
        raise refused("it was fitted on other features of prompts than this version has")
    if _sha256(found) != header.sha256:
        raise refused("its checksum is wrong: the file is damaged")
    beside = {name.removeprefix(_BESIDE): found.pop(name) for name in [*found] if name.startswith(_BESIDE)}
    try:
        return _model(header, found), beside
    except (KeyError, ValueError) as error:
        raise refused("its numbers do not fit together") from error


def _arrays(model: GainModel) -> Arrays:
    arrays: Arrays = {
        "means": model.process.means, "weights": model.process.weights, "vectors": model.vectors,
        "gain_calibration": model.calibration.gains, "success_calibration": model.calibration.success,
        "linear_map": model.process.linear.map, "linear_shift": model.process.linear.shift,
    }  # fmt: skip
    for i, block in enumerate(model.process.blocks):
        for name in ("rows", "centre", "scale", "squares"):
            arrays[f"block{i}_{name}"] = getattr(block, name)
    return arrays


def _model(header: _Header, arrays: Arrays) -> GainModel:
    """Return the model; KeyError or ValueError where the arrays are not those of one."""
    import numpy as np

    kept, k = len(arrays["vectors"]), len(header.candidates)
    columns = [len(prompt_features.NAMES) + k, header.dimensions, *([header.extra] if header.extra else [])]
    shapes = {
        "means": (2 * k - 1,), "weights": (kept, 2 * k - 1), "vectors": (kept, header.dimensions),
        "gain_calibration": (2, k - 1), "success_calibration": (2, k), "linear_map": (header.dimensions, k),
        "linear_shift": (k,),
    }  # fmt: skip
    for i, width in enumerate(columns):
        shapes |= {f"block{i}_rows": (kept, width), f"block{i}_squares": (kept,)}
        shapes |= {f"block{i}_centre": (width,), f"block{i}_scale": (width,)}
    wrong = [name for name, shape in shapes.items() if arrays[name].shape != shape or arrays[name].dtype.kind != "f"]
    if wrong or not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError(f"wrong arrays: {wrong}")
    doubles = {name: np.asarray(array, np.float64) for name, array in arrays.items()}
    single = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    blocks = tuple(
        Block(*(single[f"block{i}_{name}"] for name in ("rows", "centre", "scale", "squares")))
        for i in range(len(columns))
    )
    card = Card(
        embedder=header.embedder, candidates=header.candidates, date=header.date, rows=header.rows, digest=header.digest
    )
    process = Process(
        Linear(doubles["linear_map"], doubles["linear_shift"]), blocks, Shape(header.weight, header.width),
        doubles["means"], single["weights"],
    )  # fmt: skip
    calibration = Calibration(doubles["gain_calibration"], doubles["success_calibration"])
    return GainModel(card, process, calibration, single["vectors"], header.unfamiliar)


def _extra(model: GainModel) -> int:
    return int(model.process.blocks[2].rows.shape[1]) if len(model.process.blocks) > 2 else 0


def _sha256(arrays: Arrays) -> str:
    import numpy as np

    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
