"""Repeated images go through the vision tower once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from st_vi.inputs.flat import BOUNDARIES


class DistinctPictures:
    """Hooks around the vision tower of Qwen2-VL that compute equal images once.

    Several questions about an image, or an image that is both query and candidate, cost one pass through the tower,
    which is most of the work. The outputs are those for all images, and gradients sum over the copies. Images are equal
    if all pixels are, videos if all frames are, in their order. The hooks keep no state, so threads may share a model.

    Args:
        tower: ``model.visual`` of a Qwen2-VL or Qwen2.5-VL.

    Attributes:
        enabled: Set to False to compute every image, as stock does.

    Example:
        >>> from st_vi.modules.distinct_pictures import distinct
        >>> import torch
        >>> red, blue = torch.ones(4, 6), torch.zeros(4, 6)  # four patches each
        >>> distinct([red, blue, red])
        ([0, 1], [0, 1, 0])
    """

    def __init__(self, tower: nn.Module) -> None:
        self.enabled = True
        self.merge_size: Any = tower.spatial_merge_size
        tower.register_forward_pre_hook(self.before, with_kwargs=True)
        tower.register_forward_hook(self.after, with_kwargs=True)

    def before(self, tower: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Drop the copies, and what attention is told about a row of texts."""
        kwargs = {name: value for name, value in kwargs.items() if name not in BOUNDARIES}
        if (
            not self.enabled or len(args) != 1 or set(kwargs) != {"grid_thw"}
        ):  # positions computed in advance cover all images
            return args, kwargs
        (patches,), grids = args, kwargs["grid_thw"]
        pictures = patches.split(grids.prod(dim=1).tolist())
        chosen, places = distinct(pictures, grids.tolist())
        if len(chosen) == len(pictures):
            return args, kwargs
        # On the argument, not on self: other threads may call the same tower.
        grids = grids[chosen]
        grids.st_vi_places = places
        return (torch.cat([pictures[number] for number in chosen]),), {"grid_thw": grids}

    def after(
        self, tower: nn.Module, args: Any, kwargs: dict[str, Any], output: BaseModelOutputWithPooling
    ) -> BaseModelOutputWithPooling:
        """Restore the copies."""
        grids = kwargs.get("grid_thw")
        places = getattr(grids, "st_vi_places", None)  # of each image, among the distinct ones
        if grids is None or places is None:
            return output
        patches = grids.prod(dim=1)
        output.last_hidden_state = _repeated(output.last_hidden_state, patches, places)
        output.pooler_output = _repeated(output.pooler_output, patches // self.merge_size**2, places)
        return output


def _repeated(rows: Any, sizes: Tensor, places: list[int]) -> Tensor:
    of_picture = rows.split(sizes.tolist())
    return torch.cat([of_picture[place] for place in places])


def distinct(pictures: list[Tensor], grids: list[list[int]] | None = None) -> tuple[list[int], list[int]]:
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
