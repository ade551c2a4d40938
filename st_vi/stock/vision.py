"""The vision tower of Qwen2-VL: every distinct image once, in fewer and larger operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface

BY_SIZE = "sdpa_by_size"
"""The name of `attend_by_size` among the implementations of attention."""
_OF_TEXTS = ("cu_seq_lens_", "max_length_")  # how the names begin of what attention is told about texts in one row


class DistinctPictures:
    """The ``forward`` of the vision tower of a Qwen2-VL, which computes equal images once.

    Several questions about an image, or an image that is both query and candidate, cost one pass through the tower,
    which is most of the work. The outputs are those for all images, and gradients sum over the copies. Images are equal
    if all pixels are, videos if all frames are, in their order. There is no state, so threads may share a model.

    Args:
        tower: ``model.visual`` of a Qwen2-VL or Qwen2.5-VL.

    Attributes:
        enabled: Set to False to compute every image, as stock does.

    Example:
        >>> from st_vi.stock.vision import distinct
        >>> import torch
        >>> red, blue = torch.ones(4, 6), torch.zeros(4, 6)  # four patches each
        >>> distinct([red, blue, red])
        ([0, 1], [0, 1, 0])
    """

    def __init__(self, tower: Any) -> None:
        self.enabled = True
        self.tower = tower
        tower.forward = self

    def __call__(self, patches: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        """The output of stock's ``forward`` for all images (patches, values), with their grids (images, 3)."""
        stock = partial(type(self.tower).forward, self.tower)
        kwargs = {name: value for name, value in kwargs.items() if not name.startswith(_OF_TEXTS)}
        if not self.enabled or kwargs:  # positions computed in advance cover all images
            return stock(patches, grid_thw=grid_thw, **kwargs)
        sizes = grid_thw.prod(dim=1)
        pictures = patches.split(sizes.tolist())
        chosen, places = distinct(pictures, grid_thw.tolist())
        if len(chosen) == len(pictures):
            return stock(patches, grid_thw=grid_thw)
        output = stock(torch.cat([pictures[number] for number in chosen]), grid_thw=grid_thw[chosen])
        cells = sizes // self.tower.spatial_merge_size**2
        output.last_hidden_state = _repeated(output.last_hidden_state, sizes[chosen], places)
        output.pooler_output = _repeated(output.pooler_output, cells[chosen], places)
        return output


def _repeated(rows: Any, sizes: Tensor, places: list[int]) -> Tensor:
    of_picture = rows.split(sizes.tolist())
    return torch.cat([of_picture[place] for place in places])


def distinct(pictures: Sequence[Tensor], grids: list[list[int]] | None = None) -> tuple[list[int], list[int]]:
    """The indices of the images to compute, and for each image its place among them.

    Args:
        pictures: Patches (patches, values) of each image.
        grids: (time, rows, columns) of each image; images of different shapes differ, whatever their patches.
    """
    chosen: list[int] = []
    # By sum and shape, to compare only images that may be equal.
    alike: dict[tuple[Any, ...], list[int]] = {}
    places = []
    sums = torch.stack([picture.sum(dtype=torch.float64) for picture in pictures]).tolist()
    for number, picture in enumerate(pictures):
        key = (sums[number], *(grids[number] if grids else picture.shape))
        same = [place for place in alike.setdefault(key, []) if torch.equal(pictures[chosen[place]], picture)]
        if not same:
            same = [len(chosen)]
            alike[key] += same
            chosen.append(number)
        places.append(same[0])
    return chosen, places


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
