"""What every loss term looks at: the similarities of a batch, and who counts as whose positive or negative."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

SameAnchor = Literal["positive", "mask", "negative"]


@dataclass(frozen=True, eq=False)
class Direction:
    """One way of looking at the pairs: R queries against C candidates.

    Attributes:
        similarity: (R, C), cosines in [-1, 1].
        positive: (R, C) bool, the candidates that belong to the query; at least one a row.
        negative: (R, C) bool, the true negatives. A candidate that is neither is left out of every term.
        hard: (R, C) bool, those negatives that came with the query's own row.
    """

    similarity: Tensor
    positive: Tensor
    negative: Tensor
    hard: Tensor


@dataclass(frozen=True, eq=False)
class PairBatch:
    """The embedded rows of a batch: similarities computed once, masks decided once, shared by all terms.

    W rows come from all devices together, R of them are this device's own; D is the embedding size, n the number
    of hard negatives a row. The C = W·(1+n) candidates are all positives, then all first negatives, and so on.

    A candidate that is not the row's own positive is a negative, but for two rules:

    - `same_anchor`: the positive of another row with the same anchor is a positive here too ("positive", as in
      supervised contrastive learning, Khosla et al. 2020, arXiv 2004.11362), is left out ("mask"), or is a
      negative like any other ("negative").
    - `mask_duplicates`: a candidate with the text of the row's own anchor, or of a positive that the first rule
      spares, is left out.

    Args:
        anchors: (W, D).
        positives: (W, D).
        negatives: (n, W, D), or None.
        anchor_ids: (W,) int, equal where anchor texts are equal. None: all texts are taken as different.
        candidate_ids: (C,) int on the same scale, given exactly when `anchor_ids` is.
        scores: (W,), one known similarity a row, in [0, 1], NaN where unknown; None where there are none.
        rows: (R,) int, the rows to give a loss for, such as those that this device owns; None for all.
        same_anchor: "positive", "mask" or "negative".
        mask_duplicates: See above.

    Raises:
        ValueError: `same_anchor` is none of the three, or only one kind of ids is given.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch
        >>> ids = {"anchor_ids": torch.tensor([7, 7, 8]), "candidate_ids": torch.tensor([1, 2, 3])}
        >>> PairBatch(torch.eye(3), torch.eye(3), **ids).forward.positive.int()  # rows 0 and 1 share an anchor
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor | None = None
    anchor_ids: Tensor | None = None
    candidate_ids: Tensor | None = None
    scores: Tensor | None = None
    rows: Tensor | None = None
    same_anchor: SameAnchor = "positive"
    mask_duplicates: bool = True

    def __post_init__(self) -> None:
        if self.same_anchor not in get_args(SameAnchor):
            raise ValueError(f"same_anchor must be one of {get_args(SameAnchor)}, got {self.same_anchor!r}")
        if (self.anchor_ids is None) != (self.candidate_ids is None):
            raise ValueError("anchor_ids and candidate_ids come together or not at all")

    @cached_property
    def forward(self) -> Direction:
        """Own anchors against all candidates, (R, C)."""
        candidates = self.positives
        if self.negatives is not None:
            candidates = torch.cat([self.positives, self.negatives.flatten(0, 1)])
        similarity = _cosines(self.own(self.anchors), candidates)
        return self._direction(similarity, self.anchor_ids, self.candidate_ids)

    @cached_property
    def backward(self) -> Direction:
        """Own positives against all anchors, (R, W): the same rules, seen from the other side."""
        width = len(self.anchors)
        if self.rows is None:
            similarity = self.forward.similarity[:, :width].T
        else:
            similarity = _cosines(self.own(self.positives), self.anchors)
        if self.anchor_ids is None:
            return self._direction(similarity, None, None)
        return self._direction(similarity, self.candidate_ids[:width], self.anchor_ids)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine of every anchor with its own positive, (W,)."""
        dtype = torch.promote_types(self.anchors.dtype, torch.float32)
        return F.cosine_similarity(self.anchors.to(dtype), self.positives.to(dtype))

    @property
    def own_cosine(self) -> Tensor:
        """The same for the own rows, (R,)."""
        return self.own(self.cosine)

    @property
    def known_scores(self) -> Tensor:
        """`scores`, or a ValueError for a term that cannot do without."""
        if self.scores is None:
            raise ValueError("this term needs a score for every row, and the batch has none")
        return self.scores

    def own(self, values: Tensor) -> Tensor:
        """The own rows of (W, …), (R, …)."""
        return values if self.rows is None else values[self.rows]

    def _direction(self, similarity: Tensor, query_ids: Tensor | None, candidate_ids: Tensor | None) -> Direction:
        width = len(self.anchors)
        column = torch.arange(similarity.shape[1], device=similarity.device)
        row = self.own(column[:width])[:, None]
        own = column == row
        hard = (column % width == row) & ~own
        if query_ids is None:
            return Direction(similarity, own, ~own, hard)

        query_id, answer_ids = self.own(query_ids)[:, None], candidate_ids[:width]
        related = own[:, :width]
        if self.same_anchor != "negative":
            related = related | (query_id == query_ids)
        positive, left_out = own, F.pad(related, (0, len(column) - width))
        if self.mask_duplicates:
            is_query = candidate_ids == query_id
            is_own_answer = candidate_ids == self.own(answer_ids)[:, None]
            # A candidate says what some related positive says: one matrix product instead of an (R, W, C) mask.
            is_related_answer = related.float() @ (answer_ids[:, None] == candidate_ids).float() > 0
            duplicate = is_query | is_own_answer
            if self.same_anchor == "positive":
                positive = own | (left_out & ~duplicate)
            left_out = left_out | duplicate | is_related_answer
        elif self.same_anchor == "positive":
            positive = left_out
        negative = ~(positive | left_out)
        return Direction(similarity, positive, negative, hard & negative)


def _cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    """Cosine similarities in at least fp32: at temperature 0.05 a rounding step of bf16 is 0.08 logits."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        return F.normalize(queries.to(dtype), dim=-1) @ F.normalize(candidates.to(dtype), dim=-1).T
