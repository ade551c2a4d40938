"""The small Qwen2-VL that the training starts from: its words begin with the meaning that the teacher gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.recipes.examples.small_models import small_qwen2_vl
from st_vi.recipes.vipolyqwen import build_vipolyqwen

Teacher = Callable[[Sequence[str]], Tensor]
"""Texts to unit vectors (N, D) in fp32."""

SIZES: dict[str, Any] = {
    "vocab_size": 12_000,
    "width": 256,
    "layers": 4,
    "vision_width": 160,
    "vision_layers": 4,
    "initializer_range": 0.03,
}
MAX_PIXELS = 64 * 28 * 28


def small_vipolyqwen(
    texts: Sequence[str], teacher: Teacher, folder: str | Path, *, sizes: dict[str, Any] = SIZES, scale: float = 0.1
) -> SentenceTransformer:
    """A small viPolyQwen whose token embeddings are the teacher's vectors of the tokens, in fewer dimensions.

    A mean of such embeddings is already a usable vector of a text (model2vec, Tulkens & van Dongen 2024): the layers
    begin with words that mean something, with the standard deviation `scale`. All other weights are random. The
    tokenizer is trained on the texts; the base model, a `small_qwen2_vl` of these sizes, is saved in the folder.
    """
    small_qwen2_vl(texts, folder, **sizes)
    dimension = teacher(["a"]).shape[1]
    model = build_vipolyqwen(folder, embedding_dimension=dimension, min_pixels=28 * 28, max_pixels=MAX_PIXELS)
    model = model.cpu().float()
    tokenizer: Any = model.tokenizer
    pieces = [tokenizer.decode([number]).strip() for number in range(len(tokenizer))]
    known = [number for number, piece in enumerate(pieces) if piece and "\ufffd" not in piece and piece[0] != "<"]
    vectors = teacher([pieces[number] for number in known])
    vectors = vectors - vectors.mean(dim=0)
    first: Any = model[0]
    table = first.model.get_input_embeddings().weight
    _, _, directions = torch.linalg.svd(vectors, full_matrices=False)
    reduced = vectors @ directions[: table.shape[1]].T
    with torch.no_grad():
        table.normal_(std=scale)
        table[known, : reduced.shape[1]] = scale * reduced / reduced.std()
    return model
