"""The inputs of several columns in one table, to embed any of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.inputs.flat import flattened, padded

_TOKEN_KEYS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids", "seq_idx"}
PICTURE_KEYS = (
    ("pixel_values", "image_grid_thw", "num_images_per_sample"),
    ("pixel_values_videos", "video_grid_thw", "num_videos_per_sample"),
)
"""Qwen2-VL's names for images and for videos: patches, grids, and how many of them an input has."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The T inputs of all columns, numbered column after column.

    Attributes:
        tokens: (T, N) each, as wide as the widest column.
        left: Whether padding is on the left.
        pad: Padding token; None if nothing was padded.
        lengths: Length of each input without padding.
        pictures: Patches and grids of each input, by the name of the patches; empty for an input of text alone.
        metadata: For each input, the values shared by its whole column.
        sizes: Number of inputs of each column.
        flat: Whether `features` puts the inputs in one row without padding.

    Example:
        >>> import torch
        >>> from st_vi.losses.inputs import Inputs
        >>> left = {"input_ids": torch.tensor([[5, 6, 7], [8, 0, 0]])}
        >>> right = {"input_ids": torch.tensor([[9], [8]])}
        >>> inputs = Inputs.read([c | {"attention_mask": (c["input_ids"] > 0).long()} for c in (left, right)])
        >>> inputs.lengths, inputs.features([1, 2])["input_ids"].tolist()
        ([3, 1, 1, 1], [[8], [9]])
    """

    tokens: dict[str, Tensor]
    left: bool
    pad: int | None
    lengths: list[int]
    pictures: list[dict[str, tuple[Tensor, Tensor]]]
    metadata: list[frozenset[tuple[str, Any]]]
    sizes: list[int]
    flat: bool = False

    @classmethod
    def read(cls, columns: Sequence[Mapping[str, Any]], flat: bool = False) -> Inputs | None:
        """The inputs of these columns; None if one holds something that cannot be regrouped.

        Args:
            columns: Padded, or in one row each, as stock preprocesses texts for FlashAttention.
            flat: Whether the model reads padded columns in one row, too (`st_vi.stock.models.reads_flat`).
        """
        flat = flat or any("cu_seq_lens_q" in column for column in columns)
        columns = [padded(column) if "cu_seq_lens_q" in column else column for column in columns]
        metadata: list[Any] = [_metadata(column) for column in columns]
        tokens_of = [{k: v for k, v in column.items() if k in _TOKEN_KEYS and v is not None} for column in columns]
        if None in metadata or any(tokens.keys() != tokens_of[0].keys() for tokens in tokens_of):
            return None
        if not {"input_ids", "attention_mask"} <= tokens_of[0].keys():
            return None
        if any(v.ndim != 2 or v.shape != tokens["input_ids"].shape for tokens in tokens_of for v in tokens.values()):
            return None
        pictures: list[Any] = [_pictures(column) for column in columns]
        masks = [tokens["attention_mask"].bool().cpu() for tokens in tokens_of]
        left = any(not mask[:, 0].all() for mask in masks)
        if None in pictures or (left and any(not mask[:, -1].all() for mask in masks)):
            return None

        # The padding must be the tokenizer's own: XLM-R counts positions over all tokens with another id.
        padding = [tokens["input_ids"].cpu()[~mask] for tokens, mask in zip(tokens_of, masks, strict=True)]
        pad = next((int(tokens[0]) for tokens in padding if len(tokens)), None)
        width = max(mask.shape[1] for mask in masks)
        table = {
            key: torch.cat(
                [_widen(tokens[key], width, left, (pad or 0) * (key == "input_ids")) for tokens in tokens_of]
            )
            for key in tokens_of[0]
        }
        real = torch.cat([_widen(mask, width, left, 0) for mask in masks])
        place = torch.arange(1, width + 1)  # from the side without padding
        return cls(
            tokens=table,
            left=left,
            pad=pad,
            lengths=(real * (place.flip(0) if left else place)).amax(dim=1).clamp(min=1).tolist(),
            pictures=[picture for column in pictures for picture in column],
            metadata=[values for values, mask in zip(metadata, masks, strict=True) for _ in mask],
            sizes=[len(mask) for mask in masks],
            flat=flat,
        )

    def features(self, numbers: Sequence[int]) -> dict[str, Any]:
        """The features of these inputs, with no more padding than they need, or none."""
        width = max(self.lengths[number] for number in numbers)
        span = slice(-width, None) if self.left else slice(width)
        index = torch.tensor(numbers, device=self.tokens["input_ids"].device)
        features: dict[str, Any] = {key: values[:, span][index] for key, values in self.tokens.items()}
        for patches, grids, counts in PICTURE_KEYS:
            found = [self.pictures[number].get(patches) for number in numbers]
            if any(found):
                features[patches], features[grids] = map(torch.cat, zip(*filter(None, found), strict=True))
                features[counts] = torch.tensor([len(one[1]) if one else 0 for one in found], device=index.device)
        return (flattened(features) if self.flat else features) | dict(self.metadata[numbers[0]])


def _metadata(column: Mapping[str, Any]) -> frozenset[tuple[str, Any]] | None:
    """The values that the whole column has in common; None if it holds unknown tensors, or values such as lists."""
    values = {key: value for key, value in column.items() if key not in _TOKEN_KEYS.union(*PICTURE_KEYS)}
    if isinstance(values.get("prompt_length"), Tensor):  # a data loader gives it once, or once per row
        values["prompt_length"] = int(values["prompt_length"].flatten()[0])
    try:
        return None if any(isinstance(value, Tensor) for value in values.values()) else frozenset(values.items())
    except TypeError:
        return None


def _pictures(column: Mapping[str, Any]) -> list[dict[str, tuple[Tensor, Tensor]]] | None:
    """Patches (patches, values) and grids (pictures, 3) of each input; None if they are not in Qwen2-VL's format."""
    found: list[dict[str, tuple[Tensor, Tensor]]] = [{} for _ in column["input_ids"]]
    for keys in PICTURE_KEYS:
        pixels, grids, counts = map(column.get, keys)
        if pixels is None:
            continue
        if grids is None or counts is None or pixels.ndim != 2:
            return None
        counts = counts.tolist()
        patches = [int(of_input.prod(dim=1).sum()) for of_input in grids.cpu().split(counts)]
        parts = zip(pixels.split(patches), grids.split(counts), strict=True)
        for of_input, part, count in zip(found, parts, counts, strict=True):
            if count:
                of_input[keys[0]] = part
    return found


def _widen(values: Tensor, width: int, left: bool, fill: int) -> Tensor:
    gap = width - values.shape[1]
    return F.pad(values, (gap, 0) if left else (0, gap), value=fill) if gap else values
