"""Contrast in a subspace that the classes of a pair select."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.terms.learned import LearnedTerm
from st_vi.terms.pairs import PairBatch, any_of, products

Partners = Literal["arbitrary", "identical"]


@dataclass(frozen=True, kw_only=True)
class SimLAP(LearnedTerm):
    """Contrast of rows of any two classes, in a subspace that is learned for this pair of classes.

    Row i has the class y_i, and a partner class c_i. Each pair of classes {a, b} has a gate g_ab in (0, 1) for each of
    the D dimensions, the sigmoid of parameters. With z the vectors, g = g_{y_i c_i} and ⊙ the product by dimension:

        s_ij = cos(g ⊙ z_i, g ⊙ z_j)
        P(i) = candidates of class c_i
        N(i) = candidates of another class than y_i and c_i
        L_i  = 1/|P(i)| Σ_{p ∈ P(i)} log( 1 + Σ_{n ∈ N(i)} e^{(s_in − s_ip)/τ} )  +  β · mean_d 4 g_d (1 − g_d)

    So a row of sports and rows of politics become similar in the few dimensions that set both apart from all else,
    while the other dimensions keep what distinguishes them. The last part is the penalty that makes gates binary: 1
    where all are ½, 0 where each is 0 or 1. With "identical" partners, c_i = y_i, this is supervised contrastive
    learning with a gate for each class, and without gates if they are not trained.

    The candidates are the positives of all rows with a class; hard negatives have none, and repeated texts are left
    out as in `InfoNCE`. A row without a class, or with no candidate in P(i) or N(i), gives 0.

    Source: SimLAP, first named Hydra (Wu et al. 2024, arXiv 2410.18200), and its released code: the cosine of gated
    vectors, P and N, τ = 0.1. *Inferred*: a free gate for each pair, where the code computes it from embeddings of the
    two classes, as ImageNet has 500,500 pairs; the form of the penalty, and β, as the code has none; gates that begin
    equal, at 0.73, where s is the cosine of the vectors themselves; the mean over the positives of a row, not of a
    batch. The partner of a row is the row half a batch further on, instead of a random one, so that a resumed run
    repeats exactly: batches must be shuffled.

    Args:
        num_classes: K ≥ 1; the column `class` of the rows has numbers from 0 to K − 1.
        size: D, the number of dimensions of the vectors. Shorter vectors (`MatryoshkaLoss`) use the first gates.
        temperature: τ > 0.
        binary_weight: β ≥ 0.
        partners: "arbitrary" as in the paper, or "identical".
        parameters: (K(K + 1)/2, D), the gates before the sigmoid; by default they are 1. Pairs {a, b} with a ≤ b, in
            the order of a, then of b.
        weight: Weight of the term in a task.

    Raises:
        ValueError: An argument is out of its range, the batch has no classes, a class is K or more, or vectors are
            longer than D.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, SimLAP
        >>> term = SimLAP(num_classes=3, size=3, temperature=1.0, binary_weight=0.0, partners="identical")
        >>> pairs = PairBatch(torch.eye(3), torch.eye(3), classes=torch.tensor([0, 1, 2]))
        >>> term(pairs)  # −log(e / (e + 2))
        tensor([0.5514, 0.5514, 0.5514])
        >>> term.gate(2, 0)
        tensor([0.7311, 0.7311, 0.7311])
    """

    needs_class: ClassVar[bool] = True

    num_classes: int
    size: int
    temperature: float = 0.1
    binary_weight: float = 0.1
    partners: Partners = "arbitrary"

    def __post_init__(self) -> None:
        check_whole("num_classes", self.num_classes)
        check_whole("size", self.size)
        self._require("binary_weight", self.binary_weight >= 0, "at least 0")
        self._require_finite("binary_weight")
        self._require_one_of("partners", Partners)
        super().__post_init__()

    def initial(self) -> Tensor:
        """All gates open alike."""
        return torch.ones(self.num_classes * (self.num_classes + 1) // 2, self.size)

    def gate(self, first: int, second: int) -> Tensor:
        """g of two classes, (D,)."""
        return self.parameters[self._place(torch.tensor(first), torch.tensor(second))].sigmoid()

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        classes, answers = self._classes(pairs), pairs.num_positives * len(pairs.anchors)
        others = pairs.once(_partner_classes) if self.partners == "arbitrary" else classes
        mine, other, of_candidate = pairs.own(classes), pairs.own(others), classes.repeat(pairs.num_positives)

        gates = self.parameters[self._place(mine.clamp(min=0), other.clamp(min=0))].sigmoid()
        gates = gates[:, : pairs.anchors.shape[1]]
        logits = _gated_cosines(gates, pairs.own(pairs.unit_anchors), pairs.unit_candidates[:answers])
        logits = logits / self.temperature

        view = pairs.anchor_view
        takes_part = (view.positive | view.negative)[:, :answers] & (mine >= 0)[:, None]
        positive = takes_part & (of_candidate == other[:, None])
        stranger = (of_candidate >= 0) & (of_candidate != mine[:, None]) & (of_candidate != other[:, None])
        negative = takes_part & stranger
        contrast = any_of(positive) & any_of(negative)
        # A row of −∞ only has no derivative: it gets other values here, and 0 as its loss.
        against = logits.masked_fill(~negative, -float("inf")).masked_fill(~contrast[:, None], 0.0).logsumexp(dim=1)
        loss = (F.softplus(against[:, None] - logits) * positive).sum(dim=1) / positive.sum(dim=1).clamp(min=1)
        return (loss + self.binary_weight * (4 * gates * (1 - gates)).mean(dim=1)) * contrast

    def _classes(self, pairs: PairBatch) -> Tensor:
        classes, size = pairs.known_classes, pairs.anchors.shape[1]
        if (most := int(classes.max())) >= self.num_classes:
            raise ValueError(f"classes are numbers below num_classes={self.num_classes}, got {most}")
        if size > self.size:
            raise ValueError(f"SimLAP has gates for vectors of size={self.size}, but they have {size} numbers")
        return classes

    def _place(self, first: Tensor, second: Tensor) -> Tensor:
        """The rows of these pairs among the parameters."""
        low, high = torch.minimum(first, second), torch.maximum(first, second)
        return low * self.num_classes - low * (low - 1) // 2 + high - low


def _gated_cosines(gates: Tensor, queries: Tensor, candidates: Tensor) -> Tensor:
    """Cosines of g ⊙ query and g ⊙ candidate, with the gates of the query: three times (R, D), (C, D) → (R, C)."""
    gates = gates.to(queries.dtype)
    gated = gates**2 * queries
    own = (gated * queries).sum(dim=1, keepdim=True)
    theirs = products(gates**2, candidates**2)
    return products(gated, candidates) / (own * theirs).clamp(min=1e-24).sqrt()


def _partner_classes(pairs: PairBatch) -> Tensor:
    """The class of the row half a batch further on, among those with a class, (W,); -1 for the others."""
    classes = pairs.known_classes
    known = (classes >= 0).nonzero().squeeze(1)
    result = torch.full_like(classes, -1)
    result[known] = classes[known.roll(-(len(known) // 2))]
    return result
