"""Embedding every distinct input of a batch once, in groups of similar length."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import get_world_size
from torch import Tensor, nn

from st_vi.inputs.flat import flattened, padded
from st_vi.inputs.lazy import LazyInputs
from st_vi.losses.columns import PICTURE_KEYS, content_ids, listed
from st_vi.losses.lazy import LazyBatch
from st_vi.stock.models import merging_disabled, reads_flat

_TOKEN_KEYS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids", "seq_idx"}
# Cost of one more forward and backward pass, in tokens. Measured on one CPU thread with a 4-layer encoder: 11 ms per
# forward and 0.19 ms per token; for a small Qwen2-VL, values from 32 to 256 hardly differ. An estimate for GPUs.
_CPU_OVERHEAD, _GPU_OVERHEAD = 64, 2048
_MOST_TOKENS = 16384  # in one forward, to bound the memory for its activations
_MOST_GROUPS = 16


def embedded(
    loss: Any, features: Iterable[dict[str, Any]], compare: bool = True
) -> tuple[list[Tensor], list[Tensor] | None]:
    """The columns embedded by the model of a loss, each distinct input once if it has `embed_once`; and `content_ids`.

    Args:
        loss: Has `model` and `embed_once`.
        features: As for `embed_distinct`.
        compare: Whether the ids are needed without `embed_once`, too.

    Raises:
        TypeError: See `listed` and `reject_lazy`.
    """
    columns = listed(features)
    reject_lazy(columns, loss)
    ids = content_ids(columns) if compare or loss.embed_once else None
    if loss.embed_once:
        return embed_distinct(loss.model, columns, ids), ids
    return embed_columns(loss.model, columns), ids


def reject_lazy(columns: Sequence[Mapping[str, Any]], loss: object) -> None:
    """Raise an error if the batch has images that are not opened yet.

    Raises:
        TypeError: It has.
    """
    if any(isinstance(column.get("input_ids"), LazyInputs) for column in columns):
        raise TypeError(
            f"{type(loss).__name__} cannot open images: lazy_images=True of MixedTaskCollator needs CachedDLELoss"
        )


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
        >>> from st_vi.losses.columns import content_ids
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
        >>> from st_vi.losses.embed import Inputs
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
        in_one_row = ["cu_seq_lens_q" in column for column in columns]
        flat = flat or any(in_one_row)
        columns = [padded(column) if one else column for column, one in zip(columns, in_one_row, strict=True)]
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
