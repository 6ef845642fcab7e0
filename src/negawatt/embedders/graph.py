"""The arithmetic of a BERT encoder as an ONNX graph, without its weights.

The graph is written here, field by field, in the wire format of protocol buffers: the ``onnx`` package would weigh
36 MB for the same few kilobytes. Field numbers are those of ``onnx.proto3`` (ONNX 1.12, IR version 8, opset 17). The
weights are named as in the file that they come from, and given to the session when it is made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Annotated

import msgspec

_IR_VERSION, _OPSET = 8, 17
_FLOAT, _INT64 = 1, 7
_EXTERNAL = 1  # TensorProto.data_location
_ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_INTS = 1, 2, 7


Count = Annotated[int, msgspec.Meta(ge=1)]


class Shape(msgspec.Struct, frozen=True):
    """The shape of a BERT encoder, by the names of its ``config.json``."""

    hidden_size: Count
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Count
    max_position_embeddings: Count
    vocab_size: Count
    layer_norm_eps: float = 1e-12
    type_vocab_size: Count = 2


def build(shape: Shape) -> bytes:
    """Return the graph as a serialised ``ModelProto``.

    Inputs: ``tokens``, float (texts, length, hidden), the sums of the three embeddings; ``heads``, int64, (texts,
    length, heads, hidden / heads); ``whole``, int64, (texts, length, hidden). Output: ``states``, float (texts,
    length, hidden), of the last layer. Their mean is not taken here: the runtime sums in another order where there is
    one text than where there are many.
    """
    graph = _Graph()
    width, head = shape.hidden_size, shape.hidden_size // shape.num_attention_heads
    flat = graph.constant_ints("flat", [-1, width])
    scale = graph.constant_float("scale", 1 / sqrt(head))
    root, one, half = (graph.constant_float(n, v) for n, v in (("root", sqrt(2)), ("one", 1.0), ("half", 0.5)))
    x = graph.node("Reshape", ["tokens", flat])
    x = graph.normalised(x, "embeddings.LayerNorm", shape)
    for i in range(shape.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (graph.linear(x, f"{layer}.attention.self.{n}", width, width) for n in ("query", "key", "value"))
        q = graph.node("Transpose", [graph.node("Reshape", [q, "heads"])], perm=[0, 2, 1, 3])
        k = graph.node("Transpose", [graph.node("Reshape", [k, "heads"])], perm=[0, 2, 3, 1])
        v = graph.node("Transpose", [graph.node("Reshape", [v, "heads"])], perm=[0, 2, 1, 3])
        weights = graph.node("Softmax", [graph.node("Mul", [graph.node("MatMul", [q, k]), scale])], axis=-1)
        seen = graph.node("Transpose", [graph.node("MatMul", [weights, v])], perm=[0, 2, 1, 3])
        seen = graph.linear(graph.node("Reshape", [seen, flat]), f"{layer}.attention.output.dense", width, width)
        x = graph.normalised(graph.node("Add", [x, seen]), f"{layer}.attention.output.LayerNorm", shape)
        inner = graph.linear(x, f"{layer}.intermediate.dense", shape.intermediate_size, width)
        error = graph.node("Add", [graph.node("Erf", [graph.node("Div", [inner, root])]), one])
        inner = graph.node("Mul", [graph.node("Mul", [inner, error]), half])
        inner = graph.linear(inner, f"{layer}.output.dense", width, shape.intermediate_size)
        x = graph.normalised(graph.node("Add", [x, inner]), f"{layer}.output.LayerNorm", shape)
    graph.node("Reshape", [x, "whole"], output="states")
    return graph.model(width)


class _Graph:
    """Collects nodes and tensors."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: int | float | list[int]) -> str:
        output = output or f"t{len(self._nodes)}"
        parts = [_text(1, name) for name in inputs]
        parts += [_text(2, output), _text(3, f"n{len(self._nodes)}"), _text(4, kind)]
        parts += [_bytes(5, _attribute(name, value)) for name, value in attributes.items()]
        self._nodes.append(b"".join(parts))
        return output

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        """``x W^T + b``, with W as torch keeps it: (outputs, inputs)."""
        weight, bias = self.weight(f"{name}.weight", [rows, columns]), self.weight(f"{name}.bias", [rows])
        return self.node("Gemm", [x, weight, bias], transB=1)

    def normalised(self, x: str, name: str, shape: Shape) -> str:
        given = [self.weight(f"{name}.{part}", [shape.hidden_size]) for part in ("weight", "bias")]
        return self.node("LayerNormalization", [x, *given], axis=-1, epsilon=shape.layer_norm_eps)

    def weight(self, name: str, dims: list[int]) -> str:
        """A tensor whose numbers come from outside."""
        entry = _text(1, "location") + _text(2, "weights")
        self._tensors.append(
            b"".join(_int(1, dim) for dim in dims)
            + _int(2, _FLOAT) + _text(8, name) + _bytes(13, entry) + _int(14, _EXTERNAL)
        )  # fmt: skip
        return name

    def constant_ints(self, name: str, values: list[int]) -> str:
        raw = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
        self._tensors.append(_int(1, len(values)) + _int(2, _INT64) + _text(8, name) + _bytes(9, raw))
        return name

    def constant_float(self, name: str, value: float) -> str:
        self._tensors.append(_int(2, _FLOAT) + _text(8, name) + _bytes(9, _float32(value)))
        return name

    def model(self, width: int) -> bytes:
        graph = b"".join(_bytes(1, node) for node in self._nodes) + _text(2, "bert")
        graph += b"".join(_bytes(5, tensor) for tensor in self._tensors)
        graph += _bytes(11, _value("tokens", _FLOAT, ["texts", "length", width]))
        graph += _bytes(11, _value("heads", _INT64, [4])) + _bytes(11, _value("whole", _INT64, [3]))
        graph += _bytes(12, _value("states", _FLOAT, ["texts", "length", width]))
        return _int(1, _IR_VERSION) + _text(2, "negawatt") + _bytes(7, graph) + _bytes(8, _int(2, _OPSET))


def weights_of(shape: Shape) -> Mapping[str, tuple[int, ...]]:
    """Return the names and shapes of all weights, those of the embeddings included."""
    width, inner = shape.hidden_size, shape.intermediate_size
    found: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (shape.vocab_size, width),
        "embeddings.position_embeddings.weight": (shape.max_position_embeddings, width),
        "embeddings.token_type_embeddings.weight": (shape.type_vocab_size, width),
        **_norm("embeddings.LayerNorm", width),
    }
    for i in range(shape.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            found |= _dense(f"{layer}.attention.{name}", width, width)
        found |= _norm(f"{layer}.attention.output.LayerNorm", width)
        found |= _dense(f"{layer}.intermediate.dense", inner, width) | _dense(f"{layer}.output.dense", width, inner)
        found |= _norm(f"{layer}.output.LayerNorm", width)
    return found


def _dense(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


# -- protocol buffers ------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _float32(value: float) -> bytes:
    return struct.pack("<f", value)


def _attribute(name: str, value: int | float | list[int]) -> bytes:
    head = _text(1, name)
    if isinstance(value, list):
        return head + b"".join(_int(8, one) for one in value) + _int(20, _ATTRIBUTE_INTS)
    if isinstance(value, float):
        return head + _varint(2 << 3 | 5) + _float32(value) + _int(20, _ATTRIBUTE_FLOAT)
    return head + _int(3, value) + _int(20, _ATTRIBUTE_INT)


def _value(name: str, kind: int, dims: Iterable[str | int]) -> bytes:
    sizes = b"".join(_bytes(1, _text(2, dim) if isinstance(dim, str) else _int(1, dim)) for dim in dims)
    return _text(1, name) + _bytes(2, _bytes(1, _int(1, kind) + _bytes(2, sizes)))
