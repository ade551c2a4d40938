"""The shape of a model, read from its configuration; no weights are loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PretrainedConfig

from st_vi.hub import included_or_same

Kind = Literal["encoder", "decoder", "vision"]
Precision = Literal["float32", "autocast", "bfloat16"]
"""Weights and computation in float32; weights in float32, computation in bfloat16 autocast; both in bfloat16."""

_TEXT_ENCODERS = ("bert", "roberta", "xlm-roberta")

# Published sizes, for planning without a network: changes to the defaults of transformers.
_XLM_R: dict[str, Any] = {"model_type": "xlm-roberta", "vocab_size": 250_002, "max_position_embeddings": 514}
_XLM_R |= {"type_vocab_size": 1}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_PHOBERT = {"model_type": "roberta", "vocab_size": 64_001, "max_position_embeddings": 258, "type_vocab_size": 1}
_E5 = {"vocab_size": 250_037, "max_position_embeddings": 512, "type_vocab_size": 2}
_VISION = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14, "spatial_merge_size": 2}


def _qwen(vision_output: int, **text: Any) -> dict[str, Any]:
    return {
        "model_type": "qwen2_vl",
        "text_config": text,
        "vision_config": _VISION | {"hidden_size": vision_output},
        "dtype": "bfloat16",
        "tie_word_embeddings": True,  # the output layer is not part of an encoder
    }


_KNOWN: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": _XLM_R,
    "xlm-roberta-large": _XLM_R | _LARGE,
    "phobert-base-v2": _PHOBERT,
    "phobert-large": _PHOBERT | _LARGE,
    "multilingual-e5-small": _E5
    | {"model_type": "bert", "hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12}
    | {"intermediate_size": 1536},
    "qwen2-vl-2b-instruct": _qwen(
        1536,
        hidden_size=1536,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        intermediate_size=8960,
        vocab_size=151_936,
    ),
    "qwen2-vl-7b-instruct": _qwen(
        3584,
        hidden_size=3584,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        intermediate_size=18_944,
        vocab_size=152_064,
    ),
}


@dataclass(frozen=True)
class Stack:
    """Equal layers, one after the other: an encoder of text, a language model or a vision tower.

    Attributes:
        kind: What a layer is made of.
        layers: Number of layers.
        hidden: Width of a token between layers.
        inner: Width within the feed-forward part.
        key_values: Width of keys, and of values; less than `hidden` where heads share them.
        weights: Weights that every token is multiplied by.
        lora_weights: Weights of LoRA on all linear layers for each rank: the sum of inputs and outputs.
    """

    kind: Kind
    layers: int
    hidden: int
    inner: int
    key_values: int
    weights: int
    lora_weights: int

    def flops(self, tokens: int, inputs: int = 1) -> float:
        """Floating-point operations of a forward pass over inputs of so many tokens each."""
        return inputs * tokens * (2.0 * self.weights + 4.0 * tokens * self.hidden * self.layers)

    def backward_flops(self, tokens: int, inputs: int = 1, frozen: bool = False) -> float:
        """The same of the backward pass: two products for each one, but only one with weights that are frozen."""
        return inputs * tokens * ((2.0 if frozen else 4.0) * self.weights + 8.0 * tokens * self.hidden * self.layers)

    def kept_bytes(self, precision: Precision, dropout: bool) -> int:
        """Bytes that one layer keeps of a token for the backward pass, with fused attention.

        Counted from the code of the layers in transformers, as what autograd saves: an input of a linear layer once, in
        autocast once for each layer that casts it; inputs of norms, in autocast and in RMSNorm in fp32.
        """
        h, f, k = self.hidden, self.inner, self.key_values
        return {
            "encoder": {
                "float32": 32 * h + 8 * f,
                "autocast": 24 * h + 4 * f,
                "bfloat16": 16 * h + 4 * f,
            },
            "decoder": {
                "float32": 32 * h + 8 * k + 16 * f,
                "autocast": 30 * h + 4 * k + 8 * f,
                "bfloat16": 20 * h + 4 * k + 8 * f,
            },
            "vision": {  # queries and keys stay twice, because values are a view of the three together
                "float32": 44 * h + 12 * f,
                "autocast": 22 * h + 6 * f,
                "bfloat16": 22 * h + 6 * f,
            },
        }[self.kind][precision] + (2 * h if dropout else 0)

    def working_bytes(self, precision: Precision) -> int:
        """Bytes of a token that a layer needs while it is computed, or while its gradients are."""
        wide = 3 if self.kind == "decoder" else 2
        return (4 if precision == "float32" else 2) * wide * self.inner + 16 * self.hidden


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        name: What was asked for.
        model_type: Type of the model in transformers.
        text: The layers that read text.
        vision: The layers that read images, if any.
        weights: Number of weights, with embeddings.
        idle: Weights that get no gradient, such as an unused pooler.
        dropout: Whether training uses dropout.
        bf16: Whether the published weights are in bfloat16, in which they are trained unless loaded otherwise.
        positions: Maximum number of tokens.
        patch_pixels: Pixels of a patch, if there is a vision tower.
        patches_per_token: Patches that are merged into a token of the language model.
        patch_values: Numbers that the tower reads for a patch.
    """

    name: str
    model_type: str
    text: Stack
    vision: Stack | None
    weights: int
    idle: int
    dropout: bool
    bf16: bool
    positions: int
    patch_pixels: int = 0
    patches_per_token: int = 1
    patch_values: int = 0

    def patches(self, pixels: int) -> int:
        """Patches of an image."""
        return max(1, round(pixels / self.patch_pixels)) if self.patch_pixels else 0

    def __str__(self) -> str:
        """One line."""
        stacks = [("text", self.text), ("vision", self.vision)]
        shown = [f"{name}: {one.layers} layers of width {one.hidden:,}" for name, one in stacks if one]
        return f"{self.name}: {self.weights / 1e6:,.1f} million weights; {'; '.join(shown)}"


def read_shape(base: str | Path) -> ModelShape:
    """Read the shape of a model from its configuration.

    Args:
        base: A folder with `config.json`, the name of an included model, a published one (xlm-roberta-base and -large,
            phobert-base-v2 and -large, multilingual-e5-small, Qwen2-VL-2B-Instruct and -7B-Instruct, with or without
            owner; no network is needed), or another model on the Hub.

    Raises:
        ValueError: There is no such configuration, or the model is none that st_vi trains: BERT, RoBERTa, XLM-RoBERTa
            or Qwen2-VL.

    Example:
        >>> from st_vi.recipes.plan import read_shape
        >>> str(read_shape("FacebookAI/xlm-roberta-large"))
        'FacebookAI/xlm-roberta-large: 559.9 million weights; text: 24 layers of width 1,024'
    """
    config = _config(str(base))
    kind = config.model_type
    if kind not in (*_TEXT_ENCODERS, "qwen2_vl"):
        known = ", ".join((*_TEXT_ENCODERS, "qwen2_vl"))
        raise ValueError(f"{base} is of the type {kind!r}; plans are for {known}")
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    weights = sum(parameter.numel() for parameter in model.parameters())
    bf16 = config.dtype == torch.bfloat16
    if kind == "qwen2_vl":
        text, vision = config.text_config, config.vision_config
        heads = text.num_key_value_heads / text.num_attention_heads
        return ModelShape(
            str(base),
            kind,
            _stack(model, "decoder", text, lambda name: "language_model.layers" in name, heads),
            _vision_stack(model, vision),
            weights,
            0,
            False,
            bf16,
            text.max_position_embeddings,
            vision.patch_size**2,
            vision.spatial_merge_size**2,
            vision.in_channels * vision.temporal_patch_size * vision.patch_size**2,
        )
    idle = sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith("pooler."))
    dropout = bool(config.hidden_dropout_prob)
    text_stack = _stack(model, "encoder", config, lambda name: name.startswith("encoder."))
    positions = config.max_position_embeddings - (0 if kind == "bert" else 2)  # RoBERTa counts from the padding token
    return ModelShape(str(base), kind, text_stack, None, weights, idle, dropout, bf16, positions)


def _config(base: str) -> PretrainedConfig:
    name = base.rpartition("/")[2].lower()
    try:
        if name in _KNOWN and not Path(base).exists():
            values = dict(_KNOWN[name])
            return AutoConfig.for_model(values.pop("model_type"), **values)
        return AutoConfig.from_pretrained(included_or_same(base))
    except (OSError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{base}: no configuration: {why}. A folder with config.json will do, or one of {', '.join(_KNOWN)}"
        ) from error


def _stack(model: nn.Module, kind: Kind, config: Any, inside: Callable[[str], bool], key_values: float = 1.0) -> Stack:
    linear = [module for name, module in model.named_modules() if isinstance(module, nn.Linear) and inside(name)]
    return Stack(
        kind,
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        round(config.hidden_size * key_values),
        sum(module.weight.numel() for module in linear),
        sum(module.in_features + module.out_features for module in linear),
    )


def _vision_stack(model: nn.Module, config: Any) -> Stack:
    modules = [(name, module) for name, module in model.named_modules() if "visual" in name]
    linear = [module for name, module in modules if isinstance(module, nn.Linear) and "merger" not in name]
    patches: list[Any] = [module for _, module in modules if isinstance(module, nn.Conv3d)]
    merger = [module for name, module in modules if isinstance(module, nn.Linear) and "merger" in name]
    merged = sum(module.weight.numel() for module in merger) // config.spatial_merge_size**2
    return Stack(
        "vision",
        config.depth,
        config.embed_dim,
        round(config.embed_dim * config.mlp_ratio),
        config.embed_dim,
        sum(module.weight.numel() for module in (*linear, *patches)) + merged,
        sum(module.in_features + module.out_features for module in linear),
    )
