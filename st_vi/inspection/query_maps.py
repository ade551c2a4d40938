"""Which patches of an image speak for a query, beside those that the pool weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from torch.nn.functional import cosine_similarity

from st_vi.inspection.attention import around_pooling
from st_vi.inspection.patch_masks import copies, paint, picture_grid
from st_vi.inspection.patches import preprocess_pictures, views_of

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class QueryMap:
    """What every patch of an image has to do with a query; all maps are (rows, columns), fp32.

    Attributes:
        similarity: Cosine of the query with the embedding that the patch alone would give: its token is the only one
            that is pooled. Its token has seen the whole image, so this says what the model put there.
        fall: By how much the cosine of the image falls when the patch alone is painted in the mean colour of the image
            and all is encoded again. Negative where the image comes nearer to the query without the patch.
        weights: Weights of the pool, which know nothing of the query; their sum is at most 1.
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
    """Ask of every patch of an image whether it speaks for a query.

    Args:
        model: As for `view_patches`.
        images: As for `view_patches`.
        query: An embedding, (D,).
        text: As for `view_patches`.
        number: Index of the image to look at.
        prompt_name: As for `view_patches`.
        batch_size: Number of painted copies encoded together, at least 1.

    Raises:
        ValueError: As for `view_patches`; or `number` is out of range.

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
    features = preprocess_pictures(model, pictures, text, prompt_name)
    places = picture_grid(model, features, number)
    query = query.float().cpu()
    (whole,) = views_of(model, dict(features))
    cosine = float(cosine_similarity(whole.embedding, query, dim=-1))
    alone = cosine_similarity(_alone(model, dict(features), places.flatten()), query, dim=-1)
    painted = torch.cat(
        [
            cosine_similarity(_painted(model, features, number, patches), query, dim=-1)
            for patches in torch.eye(places.numel(), dtype=torch.bool).split(batch_size)
        ]
    )
    return QueryMap(alone.view(places.shape), cosine - painted.view(places.shape), whole.maps[number], cosine)


def _alone(model: SentenceTransformer, features: dict[str, Any], tokens: Tensor) -> Tensor:
    """The embeddings (tokens, D) of an input of which one token is pooled at a time."""
    before, pooling, after = around_pooling(model)
    model.eval()
    for module in before:
        features = module(features)
    states = features["token_embeddings"]
    one = torch.zeros(len(tokens), states.shape[1], dtype=torch.long, device=states.device)
    one[torch.arange(len(tokens)), tokens] = 1
    found: dict[str, Any] = {"token_embeddings": states.expand(len(tokens), -1, -1), "attention_mask": one}
    for module in (pooling, *after):
        found = module(found)
    return found["sentence_embedding"].float().cpu()[:, : model.truncate_dim]


def _painted(model: SentenceTransformer, features: dict[str, Any], number: int, masks: Tensor) -> Tensor:
    """The embeddings (masks, D) of an input with the patches of each mask (masks, patches) painted."""
    batch = {name: copies(value, len(masks)) for name, value in features.items()}
    batch["pixel_values"] = torch.cat([paint(model, features, number, mask) for mask in masks])
    return torch.stack([view.embedding for view in views_of(model, batch)])
