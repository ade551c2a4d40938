"""A score of the negatives of a training set, computed before training.

Similarities are cosines; anchors are encoded by `encode_query`, the rest by `encode_document`, as in the stock miner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import pairwise_cos_sim
from torch import Tensor

from st_vi.data.accepted import Rows, as_dataset
from st_vi.data.columns import clean_texts
from st_vi.evaluation.distinct import encode_distinct


@dataclass(frozen=True)
class ContrastiveInformation:
    """How useful a set of negatives looks; the result of `effective_contrastive_information`.

    Attributes:
        hardness: How close the negatives are to the positives, in [0, 1].
        safety: Share of negatives that are not suspected to be false negatives, in [0, 1].
        negatives: K, the number of negatives per row.

    Example:
        >>> from st_vi.data.audit.quality import ContrastiveInformation
        >>> round(ContrastiveInformation(hardness=0.5, safety=1.0, negatives=1).score, 4)  # log 2 · 2/3
        0.4621
    """

    hardness: float
    safety: float
    negatives: int

    @property
    def score(self) -> float:
        """log(1 + K) · 2 · hardness · safety / (hardness + safety); 0 if either is 0."""
        total = self.hardness + self.safety
        return math.log1p(self.negatives) * (2 * self.hardness * self.safety / total if total else 0.0)


def effective_contrastive_information(
    dataset: Rows,
    model: SentenceTransformer,
    teacher: SentenceTransformer | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
    batch_size: int = 32,
    show_progress_bar: bool = True,
) -> ContrastiveInformation:
    """Effective contrastive information (ECI) of the negatives of a dataset, in the style of the paper.

    `information_from_similarities` defines the score; the similarities are cosines under `model`.

    Negatives mined with a margin under the same model are all safe by that margin; only a `teacher`, another and better
    model, can then find unsafe ones.

    Args:
        dataset: Columns anchor, positive, and one or more whose names begin with "negative".
        model: The model to be trained, which determines the hardness.
        teacher: The model that determines the safety; None takes `model`.
        absolute_margin: See `information_from_similarities`.
        relative_margin: See `information_from_similarities`.
        batch_size: Texts per batch.
        show_progress_bar: Show the progress of encoding.

    Raises:
        ValueError: A missing column, no rows, or text that is empty or no string; names column, row and value.

    Example:
        >>> from datasets import Dataset
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.data import effective_contrastive_information
        >>> model = SentenceTransformer(modules=[BoW(vocab=["trời", "mưa", "to", "nắng"])], device="cpu")
        >>> rows = {"anchor": ["trời mưa"], "positive": ["trời mưa to"], "negative": ["trời nắng"]}
        >>> found = effective_contrastive_information(Dataset.from_dict(rows), model)
        >>> round(found.hardness, 4), found.safety  # cosines of 2/√6 and 1/2
        (0.6124, 1.0)
    """
    dataset = as_dataset(dataset)
    names = triplet_columns(dataset)
    settings: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    positive, negative = cosines(dataset, names, model, **settings)
    doubted = cosines(dataset, names, teacher, **settings) if teacher is not None else (None, None)
    return information_from_similarities(positive, negative, *doubted, absolute_margin, relative_margin)  # type: ignore[call-arg]


def information_from_similarities(
    positive: Tensor,
    negative: Tensor,
    teacher_positive: Tensor | None = None,
    teacher_negative: Tensor | None = None,
    absolute_margin: float | None = None,
    relative_margin: float | None = 0.05,
) -> ContrastiveInformation:
    """log(1 + K) · harmonic mean of hardness and safety.

    - Hardness: the mean over all negatives of s⁻/s⁺, clipped to [0, 1]. For s⁺ ≤ 0, it is 1 if
      s⁻ ≥ s⁺, else 0.
    - Safety: the share of all negatives with t⁻ ≤ t⁺ − absolute_margin and t⁻ ≤ t⁺ − relative_margin · |t⁺|, the
      rule by which stock `mine_hard_negatives` keeps a candidate; t is s, or the teacher's.

    Source: arXiv 2603.20990, first version, for the shape of the score (a capacity in K, times a harmonic balance of
    hardness and safety); the second version scores a set otherwise. How both parts are measured is *inferred*, as is
    taking the harmonic mean once, of their means over the whole set. Compare only scores of the same model.

    Args:
        positive: s⁺, (B,), similarity of anchor and positive.
        negative: s⁻, (B, K), of the anchor and each of its negatives.
        teacher_positive: t⁺, (B,), with `teacher_negative`; a teacher's scores of any range.
        teacher_negative: t⁻, (B, K).
        absolute_margin: How far a safe negative lies below the positive, ≥ 0; None for no such rule.
        relative_margin: The same as a share of the positive's similarity, ≥ 0; None for no such rule.

    Raises:
        ValueError: Shapes that do not fit, no values, NaN or infinite ones, no margin at all or one below 0, or
            half of the teacher's scores.

    Example:
        >>> import torch
        >>> from st_vi.data.audit.quality import information_from_similarities
        >>> information_from_similarities(torch.tensor([0.5, 1.0]), torch.tensor([[0.5, 0.25], [0.25, 0.5]]))
        ContrastiveInformation(hardness=0.5625, safety=0.75, negatives=2)
    """
    s = _checked(positive, negative, "similarities")
    if (teacher_positive is None) != (teacher_negative is None):
        raise ValueError("teacher_positive and teacher_negative go together, got one of them")
    t = s if teacher_positive is None else _checked(teacher_positive, teacher_negative, "teacher's scores")
    if t[1].shape != s[1].shape:
        raise ValueError(f"the teacher scored {tuple(t[1].shape)} negatives, the model {tuple(s[1].shape)}")
    margins = [margin for margin in (absolute_margin, relative_margin) if margin is not None]
    if not margins or min(margins) < 0:
        raise ValueError(f"give a margin of 0 or more, got {absolute_margin=} and {relative_margin=}")
    share = torch.where(s[0] > 0, (s[1] / s[0]).clamp(0, 1), (s[1] >= s[0]).double())
    limit = torch.minimum(t[0] - (absolute_margin or 0), t[0] - t[0].abs() * (relative_margin or 0))
    return ContrastiveInformation(share.mean().item(), (t[1] <= limit).double().mean().item(), s[1].shape[1])


def triplet_columns(dataset: Dataset, negative: str | None = None) -> list[str]:
    """The columns anchor, positive and the negatives, at least one; or the negative that is named."""
    for name in ("anchor", "positive", *([negative] if negative else [])):
        if name not in dataset.column_names:
            raise ValueError(f"missing column {name!r}; the columns are {dataset.column_names}")
    negatives = [negative] if negative else [n for n in dataset.column_names if n.startswith("negative")]
    if not negatives:
        raise ValueError(f"no column's name begins with 'negative'; the columns are {dataset.column_names}")
    if not len(dataset):
        raise ValueError("the dataset is empty")
    return ["anchor", "positive", *negatives]


def cosines(
    dataset: Dataset, names: Sequence[str], model: SentenceTransformer, batch_size: int, show_progress_bar: bool
) -> tuple[Tensor, Tensor]:
    """Cosines of the first column with the second, (N,), and with all others, (N, K); float64."""
    texts = [clean_texts(dataset[name], name) for name in names]
    settings: dict[str, Any] = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    queries = encode_distinct(model, texts[0], method="encode_query", **settings)
    documents = encode_distinct(model, *texts[1:], method="encode_document", **settings)
    anchor, positive, *negatives = (torch.from_numpy(vectors).double() for vectors in [*queries, *documents])
    return pairwise_cos_sim(anchor, positive), torch.stack([pairwise_cos_sim(anchor, n) for n in negatives], dim=1)


def _checked(positive: Any, negative: Any, what: str) -> tuple[Tensor, Tensor]:
    """(B, 1) and (B, K) in float64."""
    positive, negative = (torch.as_tensor(values).detach().double() for values in (positive, negative))
    if negative.ndim != 2 or positive.shape != negative.shape[:1] or not negative.numel():
        shapes = tuple(positive.shape), tuple(negative.shape)
        raise ValueError(f"{what} of positives and negatives must be (B,) and (B, K), B and K ≥ 1, got {shapes}")
    if not (positive.isfinite().all() and negative.isfinite().all()):
        raise ValueError(f"the {what} hold NaN or infinite values")
    return positive[:, None], negative
