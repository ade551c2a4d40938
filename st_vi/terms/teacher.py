"""What terms that learn from a teacher share: the own candidates of each row, and the teacher's scores of them."""

from __future__ import annotations

import torch
from torch import Tensor

from st_vi.terms.pairs import Direction, PairBatch


def taught_candidates(pairs: PairBatch) -> tuple[Direction, Tensor]:
    """The own rows against their own candidates alone, and the teacher's scores, (R, k) each.

    A candidate that the batch's masks leave out (a repeated text), or without a teacher's score (NaN or +∞), is
    neither positive nor negative; its score reads 0.

    Raises:
        ValueError: No teacher scores, or a row has no candidate but one positive.
    """
    scores, whole = pairs.known_teacher_scores, pairs.forward
    width, count = len(pairs.anchors), len(pairs.candidates)
    if count < 2:
        raise ValueError(
            "this term compares the candidates of a row and found one: give a column 'negative' (or 'negative_1', "
            "'negative_2', …), or further positives ('positive_2', … and num_positives of the loss)"
        )
    row = pairs.own(torch.arange(width, device=scores.device))
    columns = row[:, None] + width * torch.arange(count, device=scores.device)
    known = scores < float("inf")
    masks = (whole.positive, whole.negative, whole.hard)
    positive, negative, hard = (mask.gather(1, columns) & known for mask in masks)
    view = Direction(pairs.own_candidates, positive, negative, hard)
    return view, scores.to(view.similarity.dtype).masked_fill(~known, 0.0)
