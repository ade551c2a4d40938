"""Encoding of many inputs: batches by token count, corpora to Parquet, Ray, ONNX, search.

Names are imported on first use, so that `OnnxEncoder` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {
    "OnnxEncoder": "st_vi.graphs.encoder",
    "QueryEncoder": "st_vi.encoding.query",
    "encode_by_tokens": "st_vi.encoding.batches",
    "encode_corpus": "st_vi.encoding.corpus",
    "encode_with_ray": "st_vi.encoding.ray",
    "export_onnx": "st_vi.graphs.export",
    "quantize_onnx": "st_vi.graphs.export",
    "untrusted_input": "st_vi.encoding.untrusted",
}

__all__ = [
    "OnnxEncoder",
    "QueryEncoder",
    "encode_by_tokens",
    "encode_corpus",
    "encode_with_ray",
    "export_onnx",
    "quantize_onnx",
    "untrusted_input",
]

if TYPE_CHECKING:
    from st_vi.encoding.batches import encode_by_tokens
    from st_vi.encoding.corpus import encode_corpus
    from st_vi.encoding.query import QueryEncoder
    from st_vi.encoding.ray import encode_with_ray
    from st_vi.encoding.untrusted import untrusted_input
    from st_vi.graphs.encoder import OnnxEncoder
    from st_vi.graphs.export import export_onnx, quantize_onnx


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
