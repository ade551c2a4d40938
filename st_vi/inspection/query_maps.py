"""Which patches of an image support a query, to compare with the weights of the pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity

from st_vi.checks import check_whole
from st_vi.inspection.patch_masks import copies, paint, picture_grid, query_vector
from st_vi.inspection.patches import preprocess_pictures, views_of
from st_vi.inspection.rescoring import embedded_patches

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class QueryMap:
    """How much each patch of an image supports a query; all maps are (rows, columns), fp32.

    Attributes:
        similarity: Cosine of the query with the embedding of the patch alone: only its token is pooled. The token has
            attended to the whole image, so this says what the model stored there.
        fall: By how much the cosine of the image falls if the patch is painted in the mean colour of the image and the
            image is encoded again. Negative if the image is closer to the query without the patch.
        weights: Weights of the pooling, which do not depend on the query; their sum is at most 1.
        whole: Cosine of the unchanged image with the query, in [-1, 1].
    """

    similarity: Tensor
    fall: Tensor
    weights: Tensor
    whole: float


@torch.no_grad()
def query_map(
    model: SentenceTransformer,
    pictures: Image.Image | Sequence[Image.Image],
    query: Tensor,
    text: str = "",
    *,
    number: int = 0,
    prompt_name: str | None = None,
    batch_size: int = 32,
) -> QueryMap:
    """Measure how much each patch of an image supports a query.

    Model, images, text and prompt are those of `view_patches`.

    Args:
        query: An embedding, (D,), a tensor or an array.
        number: Index of the image to look at.
        batch_size: Number of painted copies encoded together, at least 1.

    Raises:
        ValueError: As for `view_patches`; `number` or `batch_size` is out of range, or the query has another dimension.

    Example:
        >>> from st_vi import load
        >>> from st_vi.data.generated.scenes import Scene, Shape, draw
        >>> from st_vi.inspection.query_maps import query_map
        >>> model = load("poly-mini")
        >>> picture = draw(Scene((Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "tím", "to", (2, 2)))))
        >>> found = query_map(model, picture, model.encode("Trong ảnh có một hình tròn đỏ.", convert_to_tensor=True))
        >>> found.fall.shape, bool(found.fall[:2, :2].max() > found.fall[2:, 2:].max())
        (torch.Size([4, 4]), True)
    """
    check_whole("batch_size", batch_size)
    features = preprocess_pictures(model, pictures, text, prompt_name)
    places = picture_grid(model, features, number)
    query = query_vector(model, query)
    (whole,) = views_of(model, dict(features))
    cosine = float(cosine_similarity(whole.embedding, query, dim=-1))
    (vectors,) = embedded_patches(model, dict(features))  # of the patches of all images
    own = vectors.split([weights.numel() for weights in whole.maps])[number].float().cpu()
    alone = cosine_similarity(own, query, dim=-1)
    painted = torch.cat(
        [
            cosine_similarity(_painted(model, features, number, patches), query, dim=-1)
            for patches in torch.eye(places.numel(), dtype=torch.bool).split(batch_size)
        ]
    )
    return QueryMap(alone.view(places.shape), cosine - painted.view(places.shape), whole.maps[number], cosine)


def _painted(model: SentenceTransformer, features: dict[str, Any], number: int, masks: Tensor) -> Tensor:
    """The embeddings (masks, D) of an input with the patches of each mask (masks, patches) painted."""
    batch = {name: copies(value, len(masks)) for name, value in features.items()}
    batch["pixel_values"] = torch.cat([paint(model, features, number, mask) for mask in masks])
    return torch.stack([view.embedding for view in views_of(model, batch)])
