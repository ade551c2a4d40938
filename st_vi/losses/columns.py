"""Columns of a batch: which of their inputs are equal, their shapes, and the rows of all devices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.util import all_gather, get_rank
from torch import Tensor
from transformers.utils import logging

from st_vi.inputs.flat import padded

PICTURE_KEYS = (
    ("pixel_values", "image_grid_thw", "num_images_per_sample"),
    ("pixel_values_videos", "video_grid_thw", "num_videos_per_sample"),
)
"""Qwen2-VL's names for images and for videos: patches, grids, and how many of them an input has."""

logger = logging.get_logger(__name__)


def listed(features: Iterable[Mapping[str, Any]]) -> list[Any]:
    """The columns of a batch, with a clearer error than that of the first use.

    Raises:
        TypeError: They are not the features of one column or more.

    Example:
        >>> from st_vi.losses.columns import listed
        >>> listed({"input_ids": None})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        TypeError: a loss takes a list with the features of each column, as model.preprocess gives them, got ...
    """
    columns = list(features)
    if not columns or not all(isinstance(column, Mapping) for column in columns):
        raise TypeError(
            "a loss takes a list with the features of each column, as model.preprocess gives them, "
            f"got {columns!r:.200}"
        )
    return columns


def content_ids(columns: Sequence[Mapping[str, Any]]) -> list[Tensor] | None:
    """One integer for each input of each column, equal if text, images and videos are equal.

    Texts are compared by token ids, images and videos by the pixels that the model sees, in their order. Padding has no
    effect, so the integers can be compared across columns and devices. Call this before the model runs, because modules
    may change the attention mask in place.

    Args:
        columns: Preprocessed columns: ``input_ids`` and ``attention_mask`` (B, N), or flattened inputs (1, total) with
            ``cu_seq_lens_q`` (B+1,); and for images, as in Qwen2-VL, ``pixel_values`` (patches, values),
            ``image_grid_thw`` (images, 3) and ``num_images_per_sample`` (B,); for videos ``pixel_values_videos``,
            ``video_grid_thw`` and ``num_videos_per_sample``.

    Returns:
        A (B,) int64 tensor for each column; None, with one warning, if a column has other content.

    Example:
        >>> import torch
        >>> from st_vi.losses.columns import content_ids
        >>> left = {"input_ids": torch.tensor([[0, 5, 6]]), "attention_mask": torch.tensor([[0, 1, 1]])}
        >>> right = {"input_ids": torch.tensor([[5, 6, 0]]), "attention_mask": torch.tensor([[1, 1, 0]])}
        >>> first, second = content_ids([left, right])
        >>> bool(first == second)
        True
    """
    ids = []
    for column in columns:
        texts = _text_hashes(column)
        images, videos = (_picture_hashes(column, *keys) for keys in PICTURE_KEYS)
        if texts is None or images is None or videos is None:
            logger.warning_once(
                "Repeated inputs cannot be found in this kind of batch: they count as negatives of each other."
            )
            return None
        # Mixed once more, so that an image and a video that change places make another input.
        ids.append(texts + images + (videos if isinstance(videos, int) else _mix(videos)))
    return ids


def check_columns(embeddings: Sequence[Tensor], ids: Sequence[Tensor] | None) -> None:
    """Check that columns and ids match, with a clearer error than that of a matrix product.

    Raises:
        TypeError: Embeddings are not floating-point numbers.
        ValueError: There are no rows, or shapes are not (B, D) for each column and (B,) for its ids.

    Example:
        >>> from st_vi.losses.columns import check_columns
        >>> check_columns([torch.eye(2), torch.eye(3)], None)
        Traceback (most recent call last):
        ValueError: embeddings must be (rows, dimensions), the same in every column, got (2, 2), (3, 3)
    """
    shapes = [tuple(column.shape) for column in embeddings]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or not shapes[0][0]:
        got = ", ".join(map(str, shapes))
        raise ValueError(f"embeddings must be (rows, dimensions), the same in every column, got {got}")
    if wrong := [column.dtype for column in embeddings if not column.is_floating_point()]:
        raise TypeError(f"embeddings must be floating-point numbers, got {wrong[0]}")
    if ids and [tuple(column.shape) for column in ids] != [shapes[0][:1]] * len(shapes):
        got = ", ".join(str(tuple(column.shape)) for column in ids)
        raise ValueError(f"ids must be ({shapes[0][0]},) for each of {len(shapes)} columns, got {got}")


def gather_columns(columns: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Gather the rows of all devices in each column, with gradients.

    Args:
        columns: Tensors (B, …) with the same B on every device.

    Returns:
        Tensors (W, …) with W = B · devices, and the indices of the B rows of this device.
    """
    rows = len(columns[0])
    start = get_rank() * rows
    gathered = [all_gather(column, with_grad=column.is_floating_point()) for column in columns]
    return gathered, torch.arange(start, start + rows, device=columns[0].device)


def _text_hashes(features: Mapping[str, Any]) -> Tensor | None:
    tokens = features.get("input_ids")
    if tokens is None or tokens.ndim != 2:
        return None
    if "cu_seq_lens_q" in features:
        features = padded(features)
    if "attention_mask" not in features:
        return None
    tokens = features["input_ids"]
    mask = features["attention_mask"].long()
    position = mask.cumsum(dim=1) - 1
    return (_mix(tokens + _mix(position)) * mask).sum(dim=1)


def _picture_hashes(features: Mapping[str, Any], *keys: str) -> Tensor | int | None:
    """(B,), 0 for an input without an image, or without a video."""
    pixels: Any
    pixels, grids, counts = map(features.get, keys)
    if pixels is None:
        return 0
    if grids is None or counts is None or pixels.ndim != 2:
        return None
    counts = counts.to(grids.device)
    patches = grids.prod(dim=1)
    rows = torch.arange(len(counts), device=grids.device)
    row = rows.repeat_interleave(counts).repeat_interleave(patches)
    if len(pixels) != len(row):
        raise ValueError(
            f"the batch has {len(pixels)} of its {len(row)} patches of images: Accelerate cuts the batches of a stream "
            'by rows. Give the trainer accelerator_config={"dispatch_batches": False}, or the rows as a Dataset'
        )
    starts = torch.zeros_like(counts).index_add(0, row, torch.ones_like(row)).cumsum(0)
    position = torch.arange(len(row), device=row.device) - F.pad(starts, (1, 0))[row]
    place = _mix(torch.arange(pixels.shape[1], device=pixels.device)) | 1
    bits = pixels.float().contiguous().view(torch.int32)
    # 256 patches at a time: int64 copies of all would not fit into the cache, and cost more time than the model.
    patch_hashes = torch.cat([(some.long() * place).sum(dim=1) for some in bits.split(256)])
    # Plain images of different shapes have the same patches, so the shape counts too.
    shapes = (grids * _mix(torch.arange(3, device=grids.device))).sum(dim=1).repeat_interleave(patches)
    hashes = _mix(patch_hashes + _mix(position) + _mix(shapes))
    return torch.zeros_like(counts).index_add(0, row, hashes)


def _mix(x: Tensor) -> Tensor:
    """Hash int64 values one by one (the finaliser of SplitMix64, which relies on overflow)."""
    x = x.long() * -7046029254386353131
    x = (x ^ (x >> 30)) * -4658895280553007687
    x = (x ^ (x >> 27)) * -7723592293110705685
    return x ^ (x >> 31)
