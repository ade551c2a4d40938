"""Candidates of each row with a teacher's scores."""

from __future__ import annotations

from torch import Tensor

from st_vi.terms.pairs import PairBatch, View


def taught_candidates(pairs: PairBatch) -> tuple[View, Tensor]:
    """A view of each own row against its own candidates, and the teacher's scores of these, (R, k) each.

    Candidates that the masks of the batch leave out (repeated texts), and those without a score (NaN or +∞), are
    neither positive nor negative. A missing score becomes 0.

    Raises:
        ValueError: There are no teacher scores, or there is only one candidate per row.
    """
    scores, view = pairs.known_teacher_scores, pairs.anchor_view
    if pairs.num_candidates < 2:
        raise ValueError(
            "this term compares the candidates of a row, and there is only one: add a column 'negative' (or "
            "'negative_1', 'negative_2', …), or further positives ('positive_2', … with num_positives of the loss)"
        )
    known = scores < float("inf")
    masks = (mask.gather(1, pairs.own_columns) & known for mask in (view.positive, view.negative, view.hard))
    view = View(pairs.own_candidates, *masks)
    return view, scores.to(view.similarity.dtype).masked_fill(~known, 0.0)
