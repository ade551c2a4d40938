"""Equal similarities of an anchor with all positives of its row."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from st_vi.terms.pairs import PairBatch
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class SimilarityDecorrelation(Term):
    """The variance of the similarities of an anchor with the n ≥ 2 positives of its row, such as an image and a crop.

    With c_ip the cosine of anchor i with its p-th positive and m_i the mean of its n cosines:

        L_i = 1/(n − 1) Σ_{p} (c_ip − m_i)² / τ²

    If one view of an item is always nearer to the text than the other, a sum of both similarities is that of one view
    with noise. The term brings them together, whatever their height: use it beside a contrastive term, and with
    ``num_positives=2`` or more in the loss.

    Source: TC-MGC, arXiv 2504.04707, Similarity Decorrelation Regularization: the variance over similarities of several
    grains (text and video, text and frames, words and video, words and frames), averaged over the pairs that match. Its
    released code has a weight of 0.5, and similarities times CLIP's logit scale, which is at most 100 (τ ≥ 0.01).
    *Ours*: grains are the views of a row, and τ is viPolyQwen's.

    Args:
        temperature: τ > 0.
        weight: Weight of the term in a task.

    Raises:
        ValueError: The temperature is not positive, or rows have one positive only.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SimilarityDecorrelation
        >>> anchors = torch.eye(2)
        >>> pairs = PairBatch(anchors, anchors, more_positives=torch.tensor([[[0.6, 0.8], [0.0, 1.0]]]))
        >>> SimilarityDecorrelation(temperature=1.0)(pairs)  # of the cosines 1 and 0.6, and of 1 and 1
        tensor([0.0800, 0.0000])
    """

    temperature: float = 0.07

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        if pairs.num_positives < 2:
            raise ValueError(
                "SimilarityDecorrelation needs two positives a row or more: columns positive, positive_2, …, and "
                "num_positives of the loss"
            )
        return (pairs.own_candidates[:, : pairs.num_positives] / self.temperature).var(dim=1)
