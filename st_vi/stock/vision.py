"""The vision tower of Qwen2-VL with fewer and larger operations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

BY_SIZE = "sdpa_by_size"
"""The name of `attend_by_size` among the implementations of attention."""


def speed_up(visual: Any) -> None:
    """Let the tower attend to all images of a size in one call, and multiply patches instead of convolving them.

    Stock attends in a Python loop over the images, and in Qwen2.5-VL over their windows; and its patches do not
    overlap, so that the convolution over them is one product of matrices, which it computes at less than half of the
    speed. ``_attn_implementation`` is where a config keeps the name of its attention. It is not saved. If it is no
    longer read, the tower loops as in stock; `tests/stock/test_vision.py` fails.

    Args:
        visual: ``model.visual`` of a Qwen2-VL or Qwen2.5-VL. Attention other than stock's SDPA is left as it is.
    """
    if visual.config._attn_implementation == "sdpa":
        visual.config._attn_implementation = BY_SIZE
        for block in visual.blocks:
            block.attn.register_forward_pre_hook(_all_at_once, with_kwargs=True)
    visual.patch_embed.proj.__class__ = PatchProjection


def _all_at_once(attention: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Leave the loop over the images one round, and tell `attend_by_size` where they begin."""
    if attention.config._attn_implementation != BY_SIZE:  # it was changed since
        return args, kwargs
    boundaries = kwargs["cu_seqlens"]
    return args, {**kwargs, "cu_seqlens": boundaries[[0, -1]], "cu_seq_lens_q": boundaries}


class PatchProjection(nn.Conv3d):
    """A convolution over patches that do not overlap: each is an input of its own."""

    def forward(self, patches: Tensor) -> Tensor:
        """From (patches, channels, frames, rows, columns) to (patches, D, 1, 1, 1)."""
        return F.linear(patches.flatten(1), self.weight.flatten(1), self.bias)[..., None, None, None]


def attend_by_size(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    cu_seq_lens_q: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Stock's SDPA within each image, as an ``AttentionInterface`` of transformers.

    Args:
        module: The layer.
        query: (1, heads, patches, width), as are `key` and `value`.
        key: As `query`.
        value: As `query`.
        attention_mask: None.
        cu_seq_lens_q: (images + 1,), where each image begins and the last one ends; None for a single image.
        **kwargs: As for stock's.

    Returns:
        (1, patches, heads, width), and no weights.
    """
    sdpa = AttentionInterface()["sdpa"]
    if cu_seq_lens_q is None:
        return sdpa(module, query, key, value, attention_mask, **kwargs)
    lengths = cu_seq_lens_q.diff().tolist()
    parts = [states[0].split(lengths, dim=1) for states in (query, key, value)]
    found: dict[int, Tensor] = {}
    for length in set(lengths):
        same = [number for number, other in enumerate(lengths) if other == length]
        together = [torch.stack([part[number] for number in same]) for part in parts]
        output, _ = sdpa(module, *together, attention_mask, **kwargs)
        found |= zip(same, output, strict=True)
    return torch.cat([found[number] for number in range(len(lengths))])[None], None


AttentionInterface.register(BY_SIZE, attend_by_size)
