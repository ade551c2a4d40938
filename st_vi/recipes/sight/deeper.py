"""More layers for a language model that has learned what its layers can hold."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from sentence_transformers import SentenceTransformer


@torch.no_grad()
def add_layers(model: SentenceTransformer, count: int) -> list[str]:
    """Give the language model `count` layers more, last and as the identity; returns their names, such as "layers.4.".

    A new layer is a copy of the last one whose two output projections are zero: nothing that the model gives changes
    until it is trained, and both projections have a gradient from the first step on.

    Source: growing without changing the function is Chen et al. 2016 (Net2Net, arXiv 1511.05641); zero projections as
    in Wu et al. 2024 (LLaMA Pro, arXiv 2401.02415).
    """
    backbone: Any = model[0].model
    language: Any = backbone.language_model
    new = range(len(language.layers), len(language.layers) + count)
    for number in new:
        layer = deepcopy(language.layers[-1])
        layer.self_attn.layer_idx = number  # its place where keys are cached
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()
        language.layers.append(layer)
    for config in {id(config): config for config in (backbone.config.get_text_config(), language.config)}.values():
        config.num_hidden_layers = new.stop
        config.layer_types = [*config.layer_types, *[config.layer_types[-1]] * count]
        config.max_window_layers = max(config.max_window_layers, new.stop)
    return [f"layers.{number}." for number in new]
