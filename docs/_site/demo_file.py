"""vi-mini and the sample sentences in one file, for the live demo of the front page.

The file is made from the weights in the package when the site is built, and kept in the cache until they change.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "st_vi" / "pretrained" / "vi-mini"
SAMPLES = ROOT / "st_vi" / "data" / "samples"
QUERIES = ("Xe buýt nào chạy suốt đêm?", "xe buyt nao chay suot dem", "mẹo trồng rau trên sân thượng")
NEAREST = 5

EMBEDDINGS = {
    "words": "embeddings.word_embeddings.weight",
    "positions": "embeddings.position_embeddings.weight",
    "type": "embeddings.token_type_embeddings.weight",
    "norm.weight": "embeddings.LayerNorm.weight",
    "norm.bias": "embeddings.LayerNorm.bias",
}
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
    "attended.norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "narrow.norm": "output.LayerNorm",
}


@dataclass(frozen=True)
class DemoFile:
    """What the demo loads, and what it shows before.

    Attributes:
        path: Of the weights, the tokenizer and the sentences with their vectors.
        count: How many sentences there are.
        recorded: The nearest sentences of `QUERIES` with their cosines.
    """

    path: Path
    count: int
    recorded: dict[str, list[tuple[str, float]]]


def demo_file() -> DemoFile:
    """The file, from the cache where neither the weights nor the sentences have changed since."""
    state = _state()
    folder = Path(os.environ.get("ST_VI_CACHE") or ROOT / ".cache").expanduser() / "live-demo"
    file, record = folder / f"vi-mini-{state}.bin", folder / f"recorded-{state}.json"
    if not (file.is_file() and record.is_file()):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*-*.*"):
            if state not in old.name:
                old.unlink(missing_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")
        content, recorded = _made()
        _write(file, content)
        _write(record, json.dumps(recorded).encode())
    return DemoFile(file, len(sentences()), json.loads(record.read_text(encoding="utf-8")))


def _write(path: Path, content: bytes) -> None:
    """At once: another build may be reading."""
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(content)
    part.replace(path)


def _state() -> str:
    """A short text that changes when the file might."""
    files = [Path(__file__), *sorted(MODEL.rglob("*.*")), *sorted(SAMPLES.iterdir())]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:12]


def sentences() -> list[str]:
    """The premises, passages and sentence pairs of the sample sets, each text once."""
    texts: list[str] = []
    for name, columns in {"nli": ["premise"], "sts": ["sentence1", "sentence2"], "retrieval": ["passage"]}.items():
        rows = [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        texts += [row[column] for row in rows for column in columns]
    return list(dict.fromkeys(texts))


def _made() -> tuple[bytes, dict[str, list[tuple[str, float]]]]:
    """The content of the file, and the recorded answers."""
    from safetensors.torch import load_file

    from st_vi import load

    model, texts = load(str(MODEL)), sentences()
    tensors = _tensors(load_file(MODEL / "model.safetensors"))
    tensors["sentences"] = model.encode(texts, convert_to_tensor=True).cpu().bfloat16()
    # Of the rounded vectors, as on the page: sentences that are nearly as near keep their order.
    cosines = model.encode(list(QUERIES), convert_to_tensor=True).cpu() @ tensors["sentences"].float().T
    nearest = [row.topk(NEAREST) for row in cosines]
    recorded = {
        query: [(texts[index], cosine) for cosine, index in zip(*(part.tolist() for part in best), strict=True)]
        for query, best in zip(QUERIES, nearest, strict=True)
    }
    return _packed(tensors, texts), recorded


def _tensors(weights: dict[str, Any]) -> dict[str, Any]:
    """The weights that the demo reads, by the names it has for them."""
    layers = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))["num_hidden_layers"]
    names = dict(EMBEDDINGS)
    for layer in range(layers):
        for short, name in LAYER.items():
            for part in ("weight", "bias"):
                names[f"{layer}.{short}.{part}"] = f"encoder.layer.{layer}.{name}.{part}"
    tensors = {short: weights[name] for short, name in names.items()}
    tensors["type"] = tensors["type"][0]  # the second is for pairs of texts
    return tensors


def _packed(tensors: dict[str, Any], texts: list[str]) -> bytes:
    """The file: the length of the header, the header as JSON, then the upper and the lower bytes of all weights.

    Apart from each other, the upper bytes (sign and most of the exponent) compress to less than half.

    Args:
        tensors: In bf16.
        texts: The sentences.
    """
    import numpy as np
    import torch

    config = json.loads((MODEL / "config.json").read_text(encoding="utf-8"))
    pieces = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
    longest = json.loads((MODEL / "tokenizer_config.json").read_text(encoding="utf-8"))["model_max_length"]
    _check(config, pieces)
    places, values, offset = {}, [], 0
    for name, tensor in tensors.items():
        places[name] = [offset, tensor.numel()]
        value = tensor.contiguous().view(torch.int16).numpy().ravel()
        values.append(np.pad(value, (0, -len(value) % (4 * config["hidden_size"]) if name == "sentences" else 0)))
        offset += len(values[-1])
    halves = np.concatenate(values).astype("<i2").view(np.uint8)
    special = {entry["content"]: entry["id"] for entry in pieces["added_tokens"]}
    header = {
        "layers": config["num_hidden_layers"],
        "width": config["hidden_size"],
        "heads": config["num_attention_heads"],
        "inner": config["intermediate_size"],
        "epsilon": config["layer_norm_eps"],
        "tensors": places,
        "tokenizer": {
            "pieces": [piece for piece, _ in pieces["model"]["vocab"]],
            "scores": [score for _, score in pieces["model"]["vocab"]],
            "special": {"begin": special["<s>"], "end": special["</s>"], "unknown": special["<unk>"]},
            "names": list(special),
            "longest": longest,
        },
        "sentences": texts,
    }
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    return gzip.compress(
        struct.pack("<I", len(head)) + head + halves[1::2].tobytes() + halves[::2].tobytes(), 6, mtime=0
    )


def _check(config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """Stop the build where the model has become one that the port in JavaScript would get wrong.

    Raises:
        ValueError: It names what is different.
    """
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    normalizers = [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}]
    modules = [entry["type"].rpartition(".")[2] for entry in json.loads((MODEL / "modules.json").read_text())]
    pooling = json.loads((MODEL / "1_Pooling" / "config.json").read_text())["pooling_mode"]
    for what, found, expected in (
        ("model_type", config["model_type"], "bert"),
        ("hidden_act", config["hidden_act"], "gelu"),
        ("modules", modules, ["Transformer", "Pooling", "Normalize"]),
        ("pooling_mode", pooling, "mean"),
        ("tokenizer", (tokenizer["model"]["type"], tokenizer["model"]["byte_fallback"]), ("Unigram", False)),
        ("normalizer", tokenizer["normalizer"], {"type": "Sequence", "normalizers": normalizers}),
        ("pre_tokenizer", tokenizer["pre_tokenizer"], metaspace),
    ):
        if found != expected:
            raise ValueError(f"vi-mini: {what} is {found!r}, and docs/_site/theme/assets/demo knows only {expected!r}")
