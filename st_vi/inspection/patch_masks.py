"""Effect of masking image patches on the similarity with a query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity

from st_vi.checks import check_whole
from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.inspection.patches import Patch, PatchView, preprocess_pictures, views_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class MaskEffect:
    """The cosine of an input with a query, with and without some patches.

    Attributes:
        whole: The unchanged input.
        painted: The input encoded again with the patches in the mean colour of the image.
        unpooled: The unchanged input with the patches left out of the pooling; other tokens still depend on them.
        similarity: Cosine of `whole` with the query, in [-1, 1].
        painted_similarity: Cosine of `painted`.
        unpooled_similarity: Cosine of `unpooled`.
        random_similarities: Cosines with the same number of random patches painted, (draws,).
    """

    whole: PatchView
    painted: PatchView
    unpooled: PatchView
    similarity: float
    painted_similarity: float
    unpooled_similarity: float
    random_similarities: Tensor


def mask_patches(
    model: SentenceTransformer,
    pictures: Image.Image | Sequence[Image.Image],
    patches: Sequence[Patch],
    query: Tensor,
    text: str = "",
    *,
    number: int = 0,
    prompt_name: str | None = None,
    draws: int = 5,
    seed: int = 0,
) -> MaskEffect:
    """Mask patches of an image, and compare the result with a query.

    Attention weights show what was pooled; masking shows how much the embedding depends on the patches. Random patches
    are the baseline, because any mask moves an embedding.

    Model, images, text and prompt are those of `view_patches`.

    Args:
        patches: Patches to mask; may be empty.
        query: An embedding, (D,), a tensor or an array.
        number: Index of the image to mask.
        draws: Number of random masks with the same number of patches, at least 1.
        seed: Seed of the random masks.

    Raises:
        ValueError: As for `view_patches`; or `number` or `draws` is out of range, a patch is outside the image, or the
            query has another dimension than the embeddings of the model.

    Example:
        >>> effect = mask_patches(model, picture, [(0, 0), (0, 1)], model.encode(caption))  # doctest: +SKIP
        >>> effect.similarity - effect.painted_similarity  # doctest: +SKIP
    """
    check_whole("draws", draws)
    features = preprocess_pictures(model, pictures, text, prompt_name)
    places = picture_grid(model, features, number)
    query = query_vector(model, query)
    rows, columns = places.shape
    if outside := [patch for patch in patches if not (0 <= patch[0] < rows and 0 <= patch[1] < columns)]:
        raise ValueError(f"the image has {rows} x {columns} patches; {outside[0]} is none of them")
    mask = torch.zeros(rows * columns, dtype=torch.bool)
    mask[[row * columns + column for row, column in patches]] = True
    generator = torch.Generator().manual_seed(seed)
    random = [mask[torch.randperm(len(mask), generator=generator)] for _ in range(draws)]

    # In one batch: the input unchanged, with patches left out of the pooling, painted, and painted at random.
    batch = {name: copies(value, 3 + draws) for name, value in features.items()}
    values = features["pixel_values"]
    batch["pixel_values"] = torch.cat(
        [values, values, *(paint(model, features, number, each) for each in (mask, *random))]
    )
    unpooled = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    unpooled[1, places.flatten()[mask.to(places.device)]] = True
    views = views_of(model, batch, unpooled)
    cosines = cosine_similarity(torch.stack([view.embedding for view in views]), query, dim=-1)
    whole, left_out, painted = views[:3]
    return MaskEffect(whole, painted, left_out, float(cosines[0]), float(cosines[2]), float(cosines[1]), cosines[3:])


def picture_grid(model: SentenceTransformer, features: dict[str, Any], number: int) -> Tensor:
    """Where the tokens of the patches of one image stand in the input, (rows, columns)."""
    backbone: Any = model[0]
    positions = backbone.patch_positions(features)[0]
    if not 0 <= number < len(positions):
        raise ValueError(f"there are {len(positions)} images, numbered from 0; {number} is none of them")
    return positions[number]


def query_vector(model: SentenceTransformer, query: Any) -> Tensor:
    """An embedding to compare with those of the model, (D,), in fp32 on the CPU."""
    query, dimension = as_tensor(query).float().cpu(), model.get_embedding_dimension()
    if query.shape != (dimension,):
        raise ValueError(f"the query must be one embedding of the model, ({dimension},), got {tuple(query.shape)}")
    return query


def copies(value: Any, count: int) -> Any:
    """The features of one input, `count` times."""
    return value.repeat(count, *[1] * (value.dim() - 1)) if isinstance(value, Tensor) else value


def paint(model: SentenceTransformer, features: dict[str, Any], number: int, mask: Tensor) -> Tensor:
    """The pixels with the masked patches of one image in its mean colour.

    Painted after the resize of the processor, so that no colour crosses the border of a patch.
    """
    backbone: Any = model[0]
    processor = backbone.processor.image_processor
    pixels: Tensor = features["pixel_values"].clone()
    sizes = features["image_grid_thw"].prod(dim=1).tolist()
    picture = pixels.split(sizes)[number]  # (patches, values), a view; the parts of a merged patch are in sequence
    by_channel = picture.view(len(mask), processor.merge_size**2, 3, -1)
    by_channel[mask.to(pixels.device)] = by_channel.mean(dim=(0, 1, 3), keepdim=True)[0]
    return pixels
