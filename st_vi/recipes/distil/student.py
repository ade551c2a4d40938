"""What the student starts as: some layers of the teacher."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn


def small_student(teacher: SentenceTransformer, layers: Sequence[int], prompt: str = "") -> SentenceTransformer:
    """Some layers of a BERT-like encoder with its embeddings, mean pooling and normalisation, in fp32.

    Args:
        teacher: The teacher; it is not changed.
        layers: Layers to keep, from 0, in this order.
        prompt: Prompt of the teacher, which the student does not use; its position embeddings start after it.

    Raises:
        ValueError: The teacher does not have these layers.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_vi.recipes.distil.student import small_student
        >>> teacher = SentenceTransformer("intfloat/multilingual-e5-small")  # doctest: +SKIP
        >>> small_student(teacher, (2, 5, 8, 11), "query: ")  # doctest: +SKIP
    """
    check_layers(teacher, layers)
    transformer: Any = copy.deepcopy(teacher[0]).float()
    backbone = transformer.model
    parent, name = _layers_of(backbone)
    setattr(parent, name, nn.ModuleList([getattr(parent, name)[layer] for layer in layers]))
    backbone.config.num_hidden_layers = len(layers)
    for setting in vars(backbone.config):
        if "dropout" in setting and isinstance(getattr(backbone.config, setting), float):
            setattr(backbone.config, setting, 0.0)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    _skip_positions(backbone, len(transformer.tokenizer.encode(prompt, add_special_tokens=False)) if prompt else 0)
    width = transformer.get_embedding_dimension()
    return SentenceTransformer(modules=[transformer, Pooling(width, "mean"), Normalize()], device="cpu")


def _skip_positions(backbone: Any, count: int) -> None:
    """Keep the position of the first token, and skip those of the prompt."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if not count or not isinstance(table, nn.Embedding):
        return
    padding = getattr(backbone.embeddings, "padding_idx", None)
    first = padding + 2 if table.padding_idx is not None and padding is not None else 1  # XLM-R counts from padding
    with torch.no_grad():
        moved = table.weight[first + count :].clone()
        table.weight[first : first + len(moved)] = moved


def _layers_of(backbone: nn.Module) -> tuple[nn.Module, str]:
    count = backbone.config.num_hidden_layers  # type: ignore[union-attr]
    for parent in backbone.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name
    raise ValueError(f"a {type(backbone).__name__} has no list of {count} layers")


def check_layers(teacher: SentenceTransformer, layers: Sequence[int]) -> None:
    """Refuse layers that the teacher does not have, and those that are named twice or out of order."""
    if not isinstance(teacher[0], Transformer):
        raise ValueError(f"expected a teacher whose first module is a Transformer, got {type(teacher[0]).__name__}")
    parent, name = _layers_of(teacher[0].model)
    count = len(getattr(parent, name))
    if not layers or any(not 0 <= layer < count for layer in layers):
        raise ValueError(f"the teacher has layers 0 to {count - 1}, got {list(layers)}")
    if list(layers) != sorted(set(layers)):  # twice the same module would be saved once
        raise ValueError(f"layers must be different ones in ascending order, got {list(layers)}")
