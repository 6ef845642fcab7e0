"""A BERT of two layers in the layout of sentence-transformers, made on the spot, and its arithmetic in plain numpy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from negawatt.embedders.graph import Shape, weights_of

CONFIG = {
    "model_type": "bert", "hidden_act": "gelu", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "intermediate_size": 64, "max_position_embeddings": 40, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    "position_embedding_type": "absolute",
}  # fmt: skip
_MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789?!.,'"
VOCABULARY = [*_MARKS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS), "how", "do", "reset", "password", "the"]


def make_folder(path: Path, **changed: Any) -> Path:
    """Write the model to *path*; *changed* are other values of its config.json."""
    config = {**CONFIG, "vocab_size": len(VOCABULARY), **changed}
    (path / "1_Pooling").mkdir(parents=True)
    write(path / "config.json", config)
    write(path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})
    write(path / "sentence_bert_config.json", {"max_seq_length": 32, "do_lower_case": False})
    write(path / "modules.json", [{"type": f"sentence_transformers.models.{n}"} for n in ("Transformer", "Pooling")])
    shape = Shape(**{name: config[name] for name in Shape.__struct_fields__})
    chance = np.random.default_rng(7)
    weights = {name: chance.normal(0, 0.3, dims).astype(np.float32) for name, dims in weights_of(shape).items()}
    write_safetensors(path / "model.safetensors", weights)
    write_tokenizer(path / "tokenizer.json")
    return path


def write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data))


def write_safetensors(path: Path, weights: dict[str, Any], *, prefix: str = "", numbers: str = "F32") -> None:
    """Write *weights* in the format of safetensors."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, array in weights.items():
        raw = array.astype({"F32": "<f4", "F16": "<f2"}[numbers]).tobytes()
        place = [len(body), len(body) + len(raw)]
        header[prefix + name] = {"dtype": numbers, "shape": list(array.shape), "data_offsets": place}
        body += raw
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the weights in *path*, of 32 bits."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    del header["__metadata__"]
    return {
        name: np.frombuffer(data, "<f4", math.prod(entry["shape"]), start + entry["data_offsets"][0]).reshape(
            entry["shape"]
        )
        for name, entry in header.items()
    }


def write_tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    ids = {token: number for number, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=128)  # as some models ship it: it has to be switched off
    tokenizer.save(str(path))


def reference(folder: Path, text: str) -> Any:
    """Return the row of *text* by the textbook, in 64 bits, one operation after the other."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    limit = json.loads((folder / "sentence_bert_config.json").read_text())["max_seq_length"]
    tokenizer.enable_truncation(limit)
    config = json.loads((folder / "config.json").read_text())
    w = {name: array.astype(np.float64) for name, array in read_safetensors(folder / "model.safetensors").items()}
    ids, heads = tokenizer.encode(text).ids, config["num_attention_heads"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normalised(x, name):
        spread = np.sqrt(x.var(-1, keepdims=True) + config["layer_norm_eps"])
        return (x - x.mean(-1, keepdims=True)) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = normalised(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    size = x.shape[1] // heads
    for number in range(config["num_hidden_layers"]):
        at = f"encoder.layer.{number}"
        q, k, v = (linear(x, f"{at}.attention.self.{name}") for name in ("query", "key", "value"))
        seen = np.empty_like(x)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            seen[:, part] = scores / scores.sum(-1, keepdims=True) @ v[:, part]
        x = normalised(x + linear(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
        x = normalised(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)
