"""Embedding every distinct input once, and gathering the rows of all devices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers.util import all_gather, get_rank, get_world_size
from torch import Tensor, nn

from st_vi.losses.inputs import Inputs
from st_vi.losses.lazy import LazyBatch
from st_vi.stock.models import merging_disabled, reads_flat

# Cost of one more forward and backward pass, in tokens. Measured on one CPU thread with a 4-layer encoder: 11 ms per
# forward and 0.19 ms per token; for a small Qwen2-VL, values from 32 to 256 hardly differ. An estimate for GPUs.
_CPU_OVERHEAD, _GPU_OVERHEAD = 64, 2048
_MOST_TOKENS = 16384  # in one forward, to bound the memory for its activations
_MOST_GROUPS = 16


def embed_distinct(
    model: nn.Module, columns: Sequence[Mapping[str, Any]], ids: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Embed every distinct input of the columns once, in groups of similar length or without padding.

    Equal inputs share one embedding, also across columns, and its gradient is the sum over all uses. The result is the
    same as with separate embeddings, except that repeats share one dropout mask. Within a row, inputs are not shared:
    an anchor that is its own positive (SimCSE) is embedded twice. Inputs of columns with different metadata
    (``modality``, ``prompt_length``, ``task``) are never in one group. The columns are not changed.

    With FlashAttention, a group is one row without padding, of all lengths (`flattened`): texts that stock flattened,
    and any input of a `Qwen2VLTransformer`.

    With several processes, there are always as many forward passes as columns, because sharded models (FSDP, ZeRO-3)
    and DDP with ``broadcast_buffers`` communicate in every pass and would hang if one process had fewer. Images come
    last, because DDP with ``find_unused_parameters``, the default of the trainer, considers parameters unused if the
    last pass does not use them. A model with a *sharded* vision tower needs ``embed_once=False`` unless every pass of
    every process has images.

    Args:
        model: Called with features, returns ``sentence_embedding`` (inputs, D). May be wrapped (DDP, compiled).
        columns: Preprocessed columns: ``input_ids`` and ``attention_mask`` (B, N), padded on one side, or flattened
            texts; and images in the format of Qwen2-VL (`content_ids`). With other tensors, or padding on both sides,
            columns are embedded one by one.
        ids: (B,) int for each column, equal if inputs are equal (`content_ids`); None if all inputs are distinct.

    Returns:
        Embeddings (B, D), one tensor for each column.

    Example:
        >>> import torch
        >>> from st_vi.losses.content import content_ids
        >>> from st_vi.losses.embed import embed_distinct
        >>> passes = []
        >>> def model(features):
        ...     passes.append(features["input_ids"].tolist())
        ...     return {"sentence_embedding": features["input_ids"].sum(dim=1, keepdim=True)}
        >>> anchors = {"input_ids": torch.tensor([[5, 6, 7], [8, 0, 0]])}
        >>> positives = {"input_ids": torch.tensor([[8], [8]])}
        >>> columns = [c | {"attention_mask": (c["input_ids"] > 0).long()} for c in (anchors, positives)]
        >>> embed_distinct(model, columns, content_ids(columns))
        [tensor([[18], [ 8]]), tensor([[8], [8]])]
        >>> passes  # 8 twice: in row 1 it is its own positive
        [[[8, 0, 0], [8, 0, 0], [5, 6, 7]]]
    """
    inputs = None if merging_disabled() else Inputs.read(columns, reads_flat(model))
    if inputs is None:
        return [model(column)["sentence_embedding"] for column in columns]
    stands_for = representatives(inputs, ids)
    groups = _groups(inputs, sorted(set(stands_for)), columns[0]["input_ids"].device)
    embeddings = torch.cat([model(inputs.features(group))["sentence_embedding"] for group in groups])
    place = {number: place for place, number in enumerate(number for group in groups for number in group)}
    places = torch.tensor([place[number] for number in stands_for], device=embeddings.device)
    return list(embeddings[places].split(inputs.sizes))


def representatives(inputs: Inputs | LazyBatch, ids: Sequence[Tensor] | None) -> list[int]:
    """For each input, the index of the first equal one, whose embedding it can share."""
    if ids is None:
        return list(range(len(inputs.metadata)))
    content = [number for column in ids for number in column.tolist()]
    rows = [row for size in inputs.sizes for row in range(size)]
    seen: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], int] = {}
    result = []
    for number, (row, *kind) in enumerate(zip(rows, content, inputs.metadata, strict=True)):
        seen[(row, *kind)] += 1  # a text repeated within its row counts as distinct
        result.append(first.setdefault((seen[(row, *kind)], *kind), number))
    return result


def _groups(inputs: Inputs, numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """Groups of inputs to embed together."""
    fixed = get_world_size() > 1
    overhead: float = _CPU_OVERHEAD if device.type == "cpu" else _GPU_OVERHEAD
    if inputs.flat:
        overhead = math.inf  # there is no padding to save
    elif inputs.pad is None:
        overhead = 0.5  # less than a token, so that no group needs padding: the padding token is unknown
    starts = torch.tensor([0, *inputs.sizes[:-1]]).cumsum(0).tolist()
    groups = []
    for kind in dict.fromkeys(inputs.metadata):
        members = sorted((n for n in numbers if inputs.metadata[n] == kind), key=lambda n: inputs.lengths[n])
        lengths = [inputs.lengths[number] for number in members]
        # At least as many inputs differ: those of the first row.
        count = sum(inputs.metadata[start] == kind for start in starts) if fixed else None
        begin = 0
        for end in cut(lengths, overhead, count):
            groups += [members[begin:end]] if fixed else _within_budget(inputs, members[begin:end])
            begin = end
    return sorted(groups, key=lambda group: any(inputs.pictures[number] for number in group))


def _within_budget(inputs: Inputs, members: Sequence[int]) -> list[list[int]]:
    """Inputs of ascending length in groups of at most `_MOST_TOKENS` tokens, with their padding if there is any."""
    groups: list[list[int]] = [[]]
    real = 0
    for number in members:
        length = inputs.lengths[number]
        tokens = real + length if inputs.flat else (len(groups[-1]) + 1) * length
        if groups[-1] and tokens > _MOST_TOKENS:
            groups.append([])
            real = 0
        groups[-1].append(number)
        real += length
    return groups


def cut(lengths: Sequence[int], overhead: float, count: int | None = None) -> list[int]:
    """Split ascending lengths into groups, each padded to its longest, with the fewest tokens in total.

    Args:
        lengths: Lengths above 0, in ascending order.
        overhead: Cost of a group, in tokens.
        count: Number of groups, at most that of the lengths; None for the cheapest number.

    Returns:
        The end of each group.

    Example:
        >>> from st_vi.losses.embed import cut
        >>> cut([5, 6, 6, 60, 64], overhead=10)  # 1 + 4 tokens of padding instead of 180
        [3, 5]
    """
    # Equal lengths are split only if there are too few different ones.
    ends = {i for i in range(1, len(lengths)) if lengths[i] > lengths[i - 1]} | {0, len(lengths), *range(count or 0)}
    at = torch.tensor(sorted(ends))
    sizes = at - at[:, None]
    tokens = sizes * torch.tensor([0, *lengths], dtype=torch.float64)[at]
    tokens[sizes <= 0] = torch.inf
    # least[j]: the fewest tokens for the first at[j] lengths, in one more group each round.
    least = torch.full((len(at),), torch.inf, dtype=torch.float64)
    least[0] = 0
    totals, begins = [], []
    for number in range(1, min(count or _MOST_GROUPS, len(at) - 1) + 1):
        least, begin = (least[:, None] + tokens).min(dim=0)
        totals.append(float(least[-1]) + overhead * number)
        begins.append(begin)
    number = count or totals.index(min(totals)) + 1
    cuts, end = [], len(at) - 1
    for begin in reversed(begins[:number]):
        cuts.append(int(at[end]))
        end = int(begin[end])
    return cuts[::-1]


def check_columns(embeddings: Sequence[Tensor], ids: Sequence[Tensor] | None) -> None:
    """Check that columns and ids match, with a clearer error than that of a matrix product.

    Raises:
        TypeError: Embeddings are not floating-point numbers.
        ValueError: There are no rows, or shapes are not (B, D) for each column and (B,) for its ids.

    Example:
        >>> from st_vi.losses.embed import check_columns
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
