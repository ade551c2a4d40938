"""Inputs in one row without padding, as FlashAttention reads them, and back.

Inputs are in one row if, and only if, there is ``cu_seq_lens_q``, as in stock's pooling. An ``attention_mask`` beside
it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_TOKENS = ("input_ids", "token_type_ids", "mm_token_type_ids", "position_ids")
BOUNDARIES = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""What attention is told about the inputs in a row; the names are those of transformers."""


def flattened(features: Mapping[str, Any]) -> dict[str, Any]:
    """The same inputs in one row, as stock's preprocessing gives them for FlashAttention.

    Args:
        features: ``attention_mask`` and values of tokens, (B, N). Others, such as images, stay as they are.

    Returns:
        Values of tokens (1, total), ``cu_seq_lens_q`` and ``cu_seq_lens_k`` (B+1,), where each input begins and the
        last one ends, and ``max_length_q`` and ``max_length_k``, the length of the longest.

    Example:
        >>> import torch
        >>> from st_vi.inputs.flat import flattened
        >>> texts = {"input_ids": torch.tensor([[5, 6, 7], [8, 0, 0]])}
        >>> row = flattened(texts | {"attention_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])})
        >>> row["input_ids"], row["cu_seq_lens_q"].tolist(), row["max_length_q"]
        (tensor([[5, 6, 7, 8]]), [0, 3, 4], 3)
    """
    mask = features["attention_mask"].bool()
    lengths = mask.sum(dim=1)
    found = {name: value for name, value in features.items() if name != "attention_mask"}
    found |= {name: features[name][mask][None] for name in _TOKENS if name in features}
    if "seq_idx" in features:
        found["seq_idx"] = torch.arange(len(mask), device=mask.device).repeat_interleave(lengths)[None].int()
    ends = functional.pad(lengths.cumsum(dim=0), (1, 0)).int()
    return found | dict(zip(BOUNDARIES, (ends, ends, *[int(lengths.max())] * 2), strict=True))


def padded(features: Mapping[str, Any]) -> dict[str, Any]:
    """The same inputs in rows of their own: the reverse of `flattened`, with zeros on the right.

    Args:
        features: Values of tokens (1, total), and ``cu_seq_lens_q`` (B+1,).

    Raises:
        ValueError: The tokens are not in one row that ends where the last input does.
    """
    total, shape = int(features["cu_seq_lens_q"][-1]), tuple(features["input_ids"].shape)
    if shape != (1, total):
        raise ValueError(f"cu_seq_lens_q says that inputs are in one row of {total} tokens, and input_ids are {shape}")
    lengths = features["cu_seq_lens_q"].diff()
    mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]

    def table(values: Tensor) -> Tensor:
        return values.new_zeros(mask.shape).masked_scatter(mask, values)

    found = {name: value for name, value in features.items() if name not in BOUNDARIES}
    found |= {name: table(features[name]) for name in (*_TOKENS, "seq_idx") if name in features}
    return found | {"attention_mask": mask.long()}
