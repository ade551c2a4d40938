"""A tiny random Qwen2-VL with its own tokenizer, so that multimodal tests run offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from st_vi.recipes.examples.small_models import small_qwen2_vl
from tests.conftest import SENTENCES

TINY: dict[str, Any] = {
    "vocab_size": 400,
    "width": 64,
    "layers": 2,
    "vision_width": 32,
    "vision_layers": 2,
    "initializer_range": 0.2,
}


def save_tiny_qwen2_vl(path: str | Path, **settings: Any) -> Path:
    """Save a tiny Qwen2-VL in `path`, `settings` over those above; returns `path`."""
    small_qwen2_vl(SENTENCES, path, **TINY | settings)
    return Path(path)
