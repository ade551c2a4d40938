"""A batch of pairs for the loss terms: cosines and masks of positives and negatives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

SameAnchor = Literal["positive", "mask", "negative"]


@dataclass(frozen=True, eq=False)
class View:
    """The pairs seen from one side: R queries against C candidates.

    Attributes:
        similarity: (R, C), cosines in [-1, 1].
        positive: (R, C) bool, the positives of each query; at least one per row.
        negative: (R, C) bool, the true negatives. A candidate that is neither is ignored by every term.
        hard: (R, C) bool, the hard negatives of the query's own row, a subset of `negative`.
    """

    similarity: Tensor
    positive: Tensor
    negative: Tensor
    hard: Tensor


@dataclass(frozen=True, eq=False)
class PairBatch:
    """The embedded rows of a batch; cosines and masks are computed once and shared by all terms.

    The W rows come from all devices, and R of them are this device's own. D is the embedding size. A row has 1 + m
    positives and n hard negatives: k = 1 + m + n candidates of its own. The C = k·W candidates of the batch stand
    column by column: the first positives of all rows, then the second ones, …, and the hard negatives last.

    Every candidate that is not a positive of the row is one of its negatives, with two exceptions:

    - `same_anchor`: a positive of another row with the same anchor is a positive of this row too ("positive", as in
      supervised contrastive learning, Khosla et al. 2020, arXiv 2004.11362), is left out ("mask"), or is a negative
      like any other ("negative").
    - `mask_duplicates`: a candidate with the text of the row's anchor is left out, and so is one with the text of its
      positive, or of a positive that `same_anchor` does not make a negative.

    Args:
        anchors: (W, D).
        positives: (W, D).
        negatives: (n, W, D), or None.
        more_positives: (m, W, D), further positives or views of the same rows, or None.
        anchor_ids: (W,) int, equal where anchor texts are equal. None: no two texts are equal.
        candidate_ids: (C,) int on the same scale; required with `anchor_ids`, and only then.
        scores: (W,), the known similarity of each pair in [0, 1], NaN where unknown; or None.
        teacher_scores: (W, k), a teacher's score of each candidate, or a numeric label; higher is better, on any scale.
            Or None.
        teacher_vectors: (v, W, T), a teacher's vectors of the first v of anchors and candidates, 1 ≤ v ≤ 1 + k; not
            finite where unknown. Or None.
        own_rows: (R,) int, the rows to compute the loss of, such as those of this device; None for all.
        same_anchor: "positive", "mask" or "negative".
        mask_duplicates: Leave out repeated texts.

    Raises:
        ValueError: `same_anchor` is unknown, only one kind of ids is given, or the shape of teacher scores or vectors
            does not match the candidates.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch
        >>> ids = {"anchor_ids": torch.tensor([7, 7, 8]), "candidate_ids": torch.tensor([1, 2, 3])}
        >>> pairs = PairBatch(torch.eye(3), torch.eye(3), **ids)
        >>> pairs.anchor_view.positive.int()  # rows 0 and 1 have the same anchor
        tensor([[1, 1, 0],
                [1, 1, 0],
                [0, 0, 1]], dtype=torch.int32)
    """

    anchors: Tensor
    positives: Tensor
    negatives: Tensor | None = None
    more_positives: Tensor | None = None
    anchor_ids: Tensor | None = None
    candidate_ids: Tensor | None = None
    scores: Tensor | None = None
    teacher_scores: Tensor | None = None
    teacher_vectors: Tensor | None = None
    own_rows: Tensor | None = None
    same_anchor: SameAnchor = "positive"
    mask_duplicates: bool = True

    def __post_init__(self) -> None:
        if self.same_anchor not in get_args(SameAnchor):
            raise ValueError(f"same_anchor must be one of {get_args(SameAnchor)}, got {self.same_anchor!r}")
        if (self.anchor_ids is None) != (self.candidate_ids is None):
            raise ValueError("pass both anchor_ids and candidate_ids, or neither")
        expected = (len(self.anchors), len(self.candidates))
        if self.teacher_scores is not None and self.teacher_scores.shape != expected:
            raise ValueError(
                f"teacher_scores must be (rows, candidates) {expected}, got {tuple(self.teacher_scores.shape)}"
            )
        if (vectors := self.teacher_vectors) is not None and not (
            vectors.ndim == 3 and vectors.shape[1] == expected[0] and 1 <= len(vectors) <= 1 + expected[1]
        ):
            raise ValueError(
                f"teacher_vectors must be (1 to {1 + expected[1]} inputs, {expected[0]} rows, size), got "
                f"{tuple(vectors.shape)}"
            )

    @cached_property
    def anchors_and_positives(self) -> Tensor:
        """Anchors, then all positives, (2 + m, W, D)."""
        vectors = torch.stack([self.anchors, self.positives])
        return vectors if self.more_positives is None else torch.cat([vectors, self.more_positives])

    @cached_property
    def candidates(self) -> Tensor:
        """All positives, then all negatives, (k, W, D)."""
        positives = self.anchors_and_positives[1:]
        return positives if self.negatives is None else torch.cat([positives, self.negatives])

    @property
    def inputs(self) -> list[Tensor]:
        """Anchors, then all candidates, 1 + k of (W, D)."""
        return [self.anchors, *self.candidates]

    @cached_property
    def anchor_view(self) -> View:
        """Own anchors against all candidates, (R, C)."""
        similarity = cosines(self.own(self.anchors), self.candidates.flatten(0, 1))
        return self._view(similarity, self.anchor_ids, self.candidate_ids, len(self.anchors_and_positives) - 1)

    @cached_property
    def positive_view(self) -> View:
        """Own positives against all anchors, by the same rules, (R, W)."""
        width = len(self.anchors)
        if self.own_rows is None:
            similarity = self.anchor_view.similarity[:, :width].T
        else:
            similarity = cosines(self.own(self.positives), self.anchors)
        if self.anchor_ids is None:
            return self._view(similarity, None, None)
        return self._view(similarity, self.candidate_ids[:width], self.anchor_ids)  # type: ignore[index]

    @cached_property
    def negative_items(self) -> Tensor:
        """Which rows are negatives of each own row as a whole, (R, W) bool.

        All their positives are its negatives, and their anchor has another text than its anchor and positives.
        """
        width, positives = len(self.anchors), len(self.anchors_and_positives) - 1
        negative = self.anchor_view.negative.unflatten(1, (-1, width))[:, :positives].all(dim=1)
        if self.anchor_ids is None or not self.mask_duplicates:
            return negative
        texts = [self.anchor_ids, *self.candidate_ids.view(-1, width)[:positives]]  # type: ignore[union-attr]
        own_texts = self.own(torch.stack(texts, dim=1))
        return negative & ~(own_texts[:, :, None] == self.anchor_ids).any(dim=1)

    @cached_property
    def own_candidates(self) -> Tensor:
        """Cosines of each own row with its own candidates, (R, k)."""
        similarity = self.anchor_view.similarity.unflatten(1, (len(self.candidates), -1))
        row = self.own(torch.arange(len(self.anchors), device=similarity.device))
        return similarity.take_along_dim(row[:, None, None], dim=2).squeeze(2)

    @cached_property
    def cosine(self) -> Tensor:
        """Cosine of every anchor with its own positive, (W,)."""
        dtype = torch.promote_types(self.anchors.dtype, torch.float32)
        return F.cosine_similarity(self.anchors.to(dtype), self.positives.to(dtype))

    @property
    def own_cosine(self) -> Tensor:
        """`cosine` of the own rows, (R,)."""
        return self.own(self.cosine)

    @property
    def known_scores(self) -> Tensor:
        """`scores`, (W,); raises a ValueError if there are none."""
        if self.scores is None:
            raise ValueError("this term needs a score for every row: a column 'score' with numbers between 0 and 1")
        return self.scores

    @property
    def known_teacher_scores(self) -> Tensor:
        """`teacher_scores` of the own rows, (R, k); raises a ValueError if there are none."""
        if self.teacher_scores is None:
            raise ValueError(
                "this term needs a teacher's score for every candidate: a column 'teacher_scores' with a list of "
                "numbers a row, for its positives and its negatives in the order of the columns"
            )
        return self.own(self.teacher_scores)

    @property
    def known_teacher_vectors(self) -> Tensor:
        """`teacher_vectors`, (v, W, T); raises a ValueError if there are none."""
        if self.teacher_vectors is None:
            raise ValueError(
                "this term needs a teacher's vectors: columns such as 'anchor_teacher' and 'positive_teacher' with one "
                "vector a row, all of one size"
            )
        return self.teacher_vectors

    def own(self, values: Tensor) -> Tensor:
        """The own rows, (R, …), of (W, …)."""
        return values if self.own_rows is None else values[self.own_rows]

    def _view(self, similarity: Tensor, query_ids: Tensor | None, candidate_ids: Any, positives: int = 1) -> View:
        width = len(self.anchors)
        column = torch.arange(similarity.shape[1], device=similarity.device)
        is_answer = column < positives * width  # a positive of some row
        row = self.own(column[:width])[:, None]
        own = (column % width == row) & is_answer
        hard = (column % width == row) & ~is_answer
        if query_ids is None:
            return View(similarity, own, ~own, hard)

        related = own
        if self.same_anchor != "negative":
            same = self.own(query_ids)[:, None] == query_ids
            related = own | (same.repeat(1, len(column) // width) & is_answer)
        positive, left_out = own, related
        if self.mask_duplicates:
            answer_ids = candidate_ids[: positives * width]
            own_texts = self.own(torch.stack([query_ids, *answer_ids.split(width)], dim=1))
            duplicate = (own_texts[:, :, None] == candidate_ids).any(dim=1)
            # Has the text of some related positive: one matrix product instead of an (R, W, C) mask.
            repeats = related[:, is_answer].float() @ (answer_ids[:, None] == candidate_ids).float() > 0
            if self.same_anchor == "positive":
                positive = own | (related & ~duplicate)
            left_out = related | duplicate | repeats
        elif self.same_anchor == "positive":
            positive = related
        negative = ~(positive | left_out)
        return View(similarity, positive, negative, hard & negative)


def cosines(queries: Tensor, candidates: Tensor) -> Tensor:
    """Cosine similarities in at least fp32: at temperature 0.05 a rounding step of bf16 is 0.08 logits."""
    dtype = torch.promote_types(queries.dtype, torch.float32)
    with torch.autocast(queries.device.type, enabled=False):
        return F.normalize(queries.to(dtype), dim=-1) @ F.normalize(candidates.to(dtype), dim=-1).T
