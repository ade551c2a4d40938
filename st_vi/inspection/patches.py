"""Attention weights of image patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device, truncate_embeddings
from torch import Tensor
from transformers.image_utils import SizeDict

from st_vi.checks import check_model, check_whole
from st_vi.inputs.prompts import prompt_of
from st_vi.inspection.attention import around_pooling
from st_vi.modules import Qwen2VLTransformer

if TYPE_CHECKING:
    from PIL import Image

Patch = tuple[int, int]
"""Row and column of a merged patch, from the top left; each is one visual token."""


@dataclass(frozen=True)
class PatchView:
    """An input with images as seen by a model with attention pooling. All weights sum to 1.

    Attributes:
        maps: Patch weights of every image, (rows, columns), fp32; the mean over heads.
        text: Sum of the weights of text tokens, in [0, 1].
        special: Sum of the weights of special tokens: the prefix, image delimiters, and the chat template.
        embedding: Embedding of the whole model, (D,), equal to `encode`.
    """

    maps: tuple[Tensor, ...]
    text: float
    special: float
    embedding: Tensor

    @property
    def image(self) -> float:
        """Sum of the weights of all patches of all images, in [0, 1]."""
        return float(sum(weights.sum() for weights in self.maps))


def view_patches(
    model: SentenceTransformer,
    pictures: Image.Image | Sequence[Image.Image],
    text: str = "",
    *,
    prompt_name: str | None = None,
) -> PatchView:
    """Encode one input with images and optional text, and keep the attention weights.

    Args:
        model: Model with a `Qwen2VLTransformer` and one `AttentionPooling`.
        pictures: One or more images of one input.
        text: Text of the input.
        prompt_name: As for `encode`.

    Raises:
        ValueError: The model does not accept images or has no attention pooling, there is no image, or an image cannot
            be read or is more than 200 times as long as wide.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.scenes import draw, scene
        >>> from st_vi.inspection.patches import view_patches
        >>> view = view_patches(load("poly-mini"), draw(scene("test", 0)), "Có mấy hình?")
        >>> view.maps[0].shape, round(view.image + view.text + view.special, 4)
        (torch.Size([4, 4]), 1.0)
    """
    (view,) = views_of(model, preprocess_pictures(model, pictures, text, prompt_name))
    return view


@contextmanager
def pixel_budget(model: SentenceTransformer, max_pixels: int) -> Iterator[None]:
    """Scale images to at most this many pixels within the block, to get more or fewer patches.

    Args:
        model: As for `view_patches`.
        max_pixels: Maximum number of pixels, at least 1. If it is below the minimum of the model, it replaces that too.

    Raises:
        ValueError: The model does not accept images, or `max_pixels` is below 1.
    """
    backbone = reader(model)
    check_whole("max_pixels", max_pixels)
    processor = backbone.processor.image_processor
    before = processor.size
    # For this family of models, the "edges" of the processor are areas.
    processor.size = SizeDict(shortest_edge=min(backbone.min_pixels, max_pixels), longest_edge=max_pixels)
    try:
        yield
    finally:
        processor.size = before


def patch_box(patch: Patch, size: tuple[int, int], grid: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a patch, in pixels of the image as it was given."""
    (row, column), (width, height), (rows, columns) = patch, size, grid
    return column * width / columns, row * height / rows, (column + 1) * width / columns, (row + 1) * height / rows


def reader(model: SentenceTransformer) -> Qwen2VLTransformer:
    """The first module of a model that reads images; raises a ValueError for any other."""
    check_model(model)
    if not isinstance(model[0], Qwen2VLTransformer):
        raise ValueError(
            f"this model begins with {type(model[0]).__name__} and reads no images: patches need a "
            "Qwen2VLTransformer, as built by `build_vipolyqwen`"
        )
    return model[0]


def preprocess_pictures(
    model: SentenceTransformer, pictures: Any, text: str, prompt_name: str | None
) -> dict[str, Any]:
    """The features of one input with images, on the device of the model; raises like `view_patches`."""
    reader(model)
    around_pooling(model)  # raises
    pictures = list(pictures) if isinstance(pictures, (list, tuple)) else [pictures]
    if not pictures:
        raise ValueError("there is no image: pass at least one")
    item = {"image": pictures} | ({"text": text} if text.strip() else {})
    features = model.preprocess([item], prompt=prompt_of(model, None, prompt_name))
    return batch_to_device(features, model.device)


@torch.no_grad()
def views_of(model: SentenceTransformer, features: dict[str, Any], unpooled: Tensor | None = None) -> list[PatchView]:
    """Views of a batch; tokens in `unpooled`, (B, N), are encoded but not pooled."""
    before, pooling, after = around_pooling(model)
    model.eval()
    features = before(features)
    if unpooled is not None:
        features["attention_mask"] = features["attention_mask"].masked_fill(unpooled, 0)
    features = after(pooling(features))
    weights = features["attention_weights"].view(len(features["input_ids"]), pooling.num_heads, -1).mean(dim=1).cpu()
    backbone: Any = model[0]
    known = backbone.tokenizer.added_tokens_decoder
    marks = torch.tensor([token for token, added in known.items() if added.special])
    special = torch.isin(features["input_ids"].cpu(), marks)
    embeddings = truncate_embeddings(features["sentence_embedding"], model.truncate_dim).float().cpu()
    views = []
    for row, positions in enumerate(backbone.patch_positions(features)):
        maps = tuple(weights[row][where.cpu()] for where in positions)
        on_special = float(weights[row][special[row]].sum() - sum(weights_of.sum() for weights_of in maps))
        views.append(PatchView(maps, float(weights[row][~special[row]].sum()), max(0.0, on_special), embeddings[row]))
    return views
