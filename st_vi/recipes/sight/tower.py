"""The vision tower and the whole model over images of one size: the same function, without a loop over images."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from torch import Tensor


def even_cells(visual: Any, pixel_values: Tensor, grid: Tensor) -> Tensor:
    """What ``visual(pixel_values, grid_thw)`` gives for images of one size, (pictures, cells, D).

    Stock attends in a loop over the images, which on a processor takes half of the time of a small tower. The pixel
    values are (pictures × patches, values), the grid (3,): frames (1), rows and columns of patches.
    """
    return merged(visual, even_patches(visual, pixel_values, grid))


def merged(visual: Any, patches: Tensor) -> Tensor:
    """Patches (pictures, patches, width) to cells (pictures, cells, D)."""
    cells = visual.merger(patches).view(len(patches), patches.shape[1] // visual.spatial_merge_size**2, -1)
    return cells  # type: ignore[no-any-return]


def even_patches(visual: Any, pixel_values: Tensor, grid: Tensor) -> Tensor:
    """What the tower makes of every patch, (pictures, patches, width), the patches of a cell together."""
    weight = visual.patch_embed.proj.weight.flatten(1)
    x = pixel_values.to(weight.dtype) @ weight.T
    patches = int(grid.prod())
    x = x.view(-1, patches, x.shape[-1])
    # Stock's rotation by row and column; what its module takes and gives differs between versions of transformers.
    angles = (patch_places(grid)[..., None] * visual.rotary_pos_emb.inv_freq.float()).flatten(1).repeat(1, 2)
    cos, sin = (part.to(x.dtype)[:, None] for part in (angles.cos(), angles.sin()))
    for block in visual.blocks:
        x = _layer(block, x, cos, sin)
    return x


def compile_layers(model: SentenceTransformer) -> None:
    """Fuse what the layers of the language model and of the tower compute: on a processor, half of the time.

    The first batches take a minute; a C++ compiler is needed.
    """
    global _layer
    backbone: Any = model[0].model
    for layer in backbone.language_model.layers:
        layer.compile(dynamic=True)
    _layer = torch.compile(_plain_layer, dynamic=True)


def _plain_layer(block: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    x = x + _attention(block.attn, block.norm1(x), cos, sin)
    return x + block.mlp(block.norm2(x))  # type: ignore[no-any-return]


_layer = _plain_layer


def _attention(attention: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    heads = attention.num_heads
    q, k, v = attention.qkv(x).view(*x.shape[:2], 3, heads, -1).unbind(2)
    q, k = (part * cos + _turned(part) * sin for part in (q, k))
    q, k, v = (part.transpose(1, 2) for part in (q * attention.scaling, k, v))
    weights = (q @ k.mT).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(1, 2).flatten(2))


def _turned(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def patch_places(grid: Tensor, merge: int = 2) -> Tensor:
    """Row and column of every patch, those of a cell together: (patches, 2)."""
    rows, columns = (int(side) for side in grid[1:])
    places = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), dim=-1)
    return places.view(rows // merge, merge, columns // merge, merge, 2).transpose(1, 2).reshape(-1, 2)


def picture_vectors(model: SentenceTransformer, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Unit vectors (B, D), and the cells (B, cells, width), of features from `Reader`, whose images have one size."""
    backbone: Any = model[0].model
    grids = features["image_grid_thw"]
    cells = even_cells(backbone.visual, features["pixel_values"], grids[0])
    embeds = backbone.get_input_embeddings()(features["input_ids"])
    place = features["mm_token_type_ids"].bool()[..., None].expand_as(embeds)
    embeds = embeds.masked_scatter(place, cells.flatten(0, 1).to(embeds.dtype))
    positions, _ = backbone.get_rope_index(
        features["input_ids"],
        mm_token_type_ids=features["mm_token_type_ids"],
        image_grid_thw=grids,
        attention_mask=features["attention_mask"],
    )
    tokens = backbone.language_model(
        inputs_embeds=embeds, attention_mask=features["attention_mask"], position_ids=positions
    ).last_hidden_state
    found: dict[str, Any] = {"token_embeddings": tokens, "attention_mask": features["attention_mask"]}
    for module in list(model)[1:]:
        found = module(found)
    return F.normalize(found["sentence_embedding"].float(), dim=1), cells
