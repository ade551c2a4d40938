"""A batch of pairs for the loss terms: cosines and masks of positives and negatives."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from st_vi.checks import check_choice

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
        classes: (W,) int, the class of each row, -1 where unknown; or None.
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
    classes: Tensor | None = None
    own_rows: Tensor | None = None
    same_anchor: SameAnchor = "positive"
    mask_duplicates: bool = True
    _values: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_choice("same_anchor", self.same_anchor, SameAnchor)
        if (self.anchor_ids is None) != (self.candidate_ids is None):
            raise ValueError("pass both anchor_ids and candidate_ids, or neither")
        expected = (len(self.anchors), self.num_candidates)
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

    def once(self, compute: Callable[..., Any], *settings: Any) -> Any:
        """``compute(self, *settings)``, computed once for all blocks of this batch and all terms.

        Use it for what costs much and does not depend on the own rows. Not inside ``torch.no_grad``, as another term
        may need the gradient.

        Args:
            compute: A function of the module, not a lambda. It returns a tensor or a tuple of tensors.
            settings: Hashable values.
        """
        return self._once((compute, settings), partial(compute, self, *settings))

    def _once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`: what ``compute()`` returned the first time."""
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]

    @property
    def num_positives(self) -> int:
        """1 + m."""
        return 1 + (0 if self.more_positives is None else len(self.more_positives))

    @property
    def num_candidates(self) -> int:
        """k, the candidates of a row."""
        return self.num_positives + (0 if self.negatives is None else len(self.negatives))

    @property
    def num_own_rows(self) -> int:
        """R."""
        return len(self.anchors if self.own_rows is None else self.own_rows)

    @property
    def anchors_and_positives(self) -> Tensor:
        """Anchors, then all positives, (2 + m, W, D)."""
        return self._once("anchors_and_positives", lambda: torch.stack(self.inputs[: 1 + self.num_positives]))

    @property
    def candidates(self) -> Tensor:
        """All positives, then all negatives, (k, W, D)."""
        return self._once("candidates", lambda: torch.stack(self.inputs[1:]))

    @property
    def inputs(self) -> list[Tensor]:
        """Anchors, then all candidates, 1 + k of (W, D)."""
        further = [column for part in (self.more_positives, self.negatives) if part is not None for column in part]
        return [self.anchors, self.positives, *further]

    @property
    def unit_anchors(self) -> Tensor:
        """Anchors of length 1, in at least fp32, (W, D)."""
        return self._once("unit_anchors", partial(unit, self.anchors))

    @property
    def unit_candidates(self) -> Tensor:
        """Candidates of length 1, in at least fp32, (C, D)."""
        return self._once("unit_candidates", lambda: torch.cat([unit(column) for column in self.inputs[1:]]))

    @cached_property
    def anchor_view(self) -> View:
        """Own anchors against all candidates, (R, C)."""
        similarity = self._similarity(self.unit_anchors, self.unit_candidates)
        return self._view(similarity, self.anchor_ids, self.candidate_ids, self.num_positives)

    @cached_property
    def positive_view(self) -> View:
        """Own positives against all anchors, by the same rules, (R, W)."""
        width = len(self.anchors)
        if self.own_rows is None:
            similarity = self.anchor_view.similarity[:, :width].T
        else:
            similarity = self._similarity(self.unit_candidates, self.unit_anchors)
        if self.anchor_ids is None:
            return self._view(similarity, None, None)
        return self._view(similarity, self.candidate_ids[:width], self.anchor_ids)  # type: ignore[index]

    @cached_property
    def negative_items(self) -> Tensor:
        """Which rows are negatives of each own row as a whole, (R, W) bool.

        All their positives are its negatives, and their anchor has another text than its anchor and positives.
        """
        width = len(self.anchors)
        of_column = self.anchor_view.negative.split(width, dim=1)[: self.num_positives]
        negative = of_column[0].clone()
        for of_positive in of_column[1:]:
            negative &= of_positive
        if self.anchor_ids is None or not self.mask_duplicates:
            return negative
        for ids in [self.anchor_ids, *self.candidate_ids.split(width)[: self.num_positives]]:  # type: ignore[union-attr]
            negative[_matches(self.own(ids), self.anchor_ids)] = False
        return negative

    @cached_property
    def own_candidates(self) -> Tensor:
        """Cosines of each own row with its own candidates, (R, k)."""
        return self.anchor_view.similarity.gather(1, self.own_columns)

    @property
    def own_columns(self) -> Tensor:
        """The places of each own row's candidates among all C, (R, k)."""
        numbers = torch.arange(self.num_candidates, device=self.anchors.device)
        return self._rows[:, None] + len(self.anchors) * numbers

    @property
    def cosine(self) -> Tensor:
        """Cosine of every anchor with its own positive, (W,)."""
        return self._once("cosine", lambda: (self.unit_anchors * self.unit_candidates[: len(self.anchors)]).sum(dim=1))

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

    @property
    def known_classes(self) -> Tensor:
        """`classes`, (W,); raises a ValueError if there are none."""
        if self.classes is None:
            raise ValueError("this term needs the class of the rows: a column 'class' with numbers from 0 on")
        return self.classes

    def own(self, values: Tensor) -> Tensor:
        """The own rows, (R, …), of (W, …)."""
        return values if self.own_rows is None else values[self.own_rows]

    @property
    def _rows(self) -> Tensor:
        """The numbers of the own rows, (R,)."""
        return self.own(torch.arange(len(self.anchors), device=self.anchors.device))

    def _similarity(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """Cosines of the own rows' queries with all candidates, of unit vectors."""
        return products(self.own(queries[: len(self.anchors)]), candidates)

    def _view(self, similarity: Tensor, query_ids: Tensor | None, candidate_ids: Any, positives: int = 1) -> View:
        width, device = len(self.anchors), similarity.device
        answers = positives * width  # the first candidates: each is a positive of some row
        blank = torch.zeros(similarity.shape, dtype=torch.bool, device=device)
        columns = self._rows[:, None] + width * torch.arange(similarity.shape[1] // width, device=device)
        own, hard = (blank.scatter(1, part, True) for part in (columns[:, :positives], columns[:, positives:]))
        if query_ids is None:
            return View(similarity, own, ~own, hard)

        # Only pairs with equal ids are looked at, as most texts differ.
        own_ids, related = self.own(query_ids), own
        if self.same_anchor != "negative":
            related = own.clone()
            same, other = _matches(own_ids, query_ids)
            for start in range(0, answers, width):
                related[same, other + start] = True
        positive, left_out = own, related
        if self.mask_duplicates:
            duplicate = blank
            for ids in [query_ids, *candidate_ids[:answers].split(width)]:
                duplicate[_matches(self.own(ids), candidate_ids)] = True
            left_out = related | duplicate
            if self.same_anchor == "positive":
                positive = own | (related & ~duplicate)
            if self.same_anchor != "negative":  # has the text of some related positive
                queries, texts = _distinct_pairs(query_ids.repeat(positives), candidate_ids[:answers])
                some, text = _matches(own_ids, queries)
                place, candidate = _matches(texts[text], candidate_ids)
                left_out[some[place], candidate] = True
        elif self.same_anchor == "positive":
            positive = related
        negative = ~(positive | left_out)
        return View(similarity, positive, negative, hard & negative)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (…, D) of length 1 in at least fp32: at temperature 0.05 a rounding step of bf16 is 0.08 logits."""
    return _Unit.apply(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))


def products(queries: Tensor, candidates: Tensor) -> Tensor:
    """Products of all rows, (R, D) and (C, D) → (R, C), whatever the autocast."""
    with torch.autocast(queries.device.type, enabled=False):
        return queries @ candidates.T


class _Unit(torch.autograd.Function):
    """``F.normalize(vectors, dim=-1)``, with one tensor of their size in the backward pass: their gradient.

    A vector of length 0 has no direction and stays 0, with a gradient of 0. That of ``F.normalize`` is about 1e12: it
    leaves nothing of all others when gradients are clipped, and is infinite in fp16.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor) -> Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        lengths = lengths.masked_fill(lengths < 1e-12, float("inf"))
        result = vectors / lengths
        ctx.save_for_backward(result, lengths)
        return result

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        result, lengths = ctx.saved_tensors
        along = torch.linalg.vecdot(result, gradient)[..., None]
        return torch.addcmul(gradient, result, along, value=-1).div_(lengths)


def _matches(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All (i, j) with left[i] == right[j]: the i, in ascending order, and the j."""
    values, order = right.sort()
    begin = torch.searchsorted(values, left)
    counts = torch.searchsorted(values, left, right=True) - begin
    i = torch.arange(len(left), device=left.device).repeat_interleave(counts)
    skipped = begin - (counts.cumsum(0) - counts)
    return i, order[torch.arange(len(i), device=i.device) + skipped[i]]


def _distinct_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct (left[i], right[i]); unique(dim=0) is far slower."""
    numbers = left.unique(return_inverse=True)[1] * len(left) + right.unique(return_inverse=True)[1]
    _, number = numbers.unique(return_inverse=True)
    some = torch.empty_like(number).scatter_(0, number, torch.arange(len(number), device=number.device))
    some = some[: int(number.max()) + 1]
    return left[some], right[some]


def any_of(mask: Tensor) -> Tensor:
    """``mask.any(dim=1)``, which is far slower on a CPU."""
    return mask.view(torch.uint8).amax(dim=1).bool()
