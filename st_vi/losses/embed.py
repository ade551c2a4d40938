"""Between preprocessed columns and loss terms: which inputs are the same, and every device's rows together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from sentence_transformers.util import all_gather, get_rank
from torch import Tensor
from transformers.utils import logging

logger = logging.get_logger(__name__)


def text_ids(columns: Sequence[Mapping[str, Tensor]]) -> list[Tensor] | None:
    """One integer for each text of each column, equal where the token ids are equal.

    Padding and its side play no role, so ids can be compared between columns and between devices. Call it
    before the model runs: modules may change the attention mask in place.

    Args:
        columns: Preprocessed text columns: ``input_ids`` and ``attention_mask`` (B, N), or flattened inputs
            (1, total) with ``cu_seq_lens_q`` (B+1,).

    Returns:
        A (B,) int64 tensor a column. None, with a warning once, where a column holds anything but such text.

    Example:
        >>> import torch
        >>> from st_vi.losses.embed import text_ids
        >>> left = {"input_ids": torch.tensor([[0, 5, 6]]), "attention_mask": torch.tensor([[0, 1, 1]])}
        >>> right = {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> first, second = text_ids([left, right])
        >>> bool(first == second)
        True
    """
    ids = [_text_ids(column) for column in columns]
    if any(column_ids is None for column_ids in ids):
        logger.warning_once("Equal inputs cannot be told apart in this batch: repeated texts stay negatives.")
        return None
    return ids


def _text_ids(features: Mapping[str, Tensor]) -> Tensor | None:
    tokens = features.get("input_ids")
    if tokens is None or tokens.ndim != 2 or any(key.startswith("pixel_values") for key in features):
        return None
    if "cu_seq_lens_q" in features:
        starts, lengths = features["cu_seq_lens_q"][:-1].long(), features["cu_seq_lens_q"].diff()
        text = torch.repeat_interleave(torch.arange(len(starts), device=tokens.device), lengths)
        position = torch.arange(len(text), device=tokens.device) - starts[text]
        hashes = _mix(tokens[0] + _mix(position))
        return torch.zeros_like(starts).index_add(0, text, hashes)
    if "attention_mask" not in features:
        return None
    mask = features["attention_mask"].long()
    position = mask.cumsum(dim=1) - 1
    return (_mix(tokens + _mix(position)) * mask).sum(dim=1)


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 values one by one (the finaliser of SplitMix64; overflow wraps and is meant to)."""
    x = x.long() * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return x ^ (x >> 31)


def gather_columns(columns: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Every device's rows of each column, with gradients, and which of them are this device's own.

    Args:
        columns: Tensors (B, …) with the same B on every device.

    Returns:
        Tensors (W, …) with W = B · devices, and the numbers of the B own rows.
    """
    rows = len(columns[0])
    start = get_rank() * rows
    gathered = [all_gather(column, with_grad=column.is_floating_point()) for column in columns]
    return gathered, torch.arange(start, start + rows, device=columns[0].device)
