"""Points on a sphere, trained with a real loss instead of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.evaluation.geometry import alignment, gradient_shares, relative_penalty, tolerance, uniformity
from st_vi.evaluation.geometry.gradients import GradientShare
from st_vi.losses.dle import DLELoss
from st_vi.tasks import Task
from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairBatch, PairwiseRank, ScoreMSE, Term

ALL_TERMS: tuple[Term, ...] = (
    InfoNCE(temperature=0.07, symmetric=True),
    ScoreMSE(weight=3.0),
    PairwiseRank(),
    CosineAlignment(weight=0.0),
    HardestNegativeMargin(weight=0.0),
)
"""All terms of viPolyQwen's tasks with the weights for text pairs; terms that text pairs do not have weigh 0."""


def adjusted(terms: Sequence[Term], temperature: float, weights: Mapping[str, float]) -> tuple[Term, ...]:
    """The same terms with another temperature, and with weights by class name; terms without a weight get 0."""
    weighted = [replace(term, weight=weights.get(type(term).__name__, 0.0)) for term in terms]
    return tuple(replace(t, temperature=temperature) if hasattr(t, "temperature") else t for t in weighted)  # type: ignore[call-arg]


@dataclass(frozen=True, eq=False)
class Moment:
    """Measurements before a training step.

    Attributes:
        components: Weighted loss of each term on the batch, by class name.
        shares: Share of each term in the gradient of the batch.
        mass: (2, M), relative penalty by the rank of the negative, averaged over the batch: for true negatives, and for
            twins.
        alignment: Alignment of all pairs.
        uniformity: Mean uniformity of all anchors and of all positives.
        tolerance: Mean cosine of twins among the anchors; None without twins.
        found: Share of the anchors whose nearest positive is their own or their twin's.
    """

    components: dict[str, float]
    shares: dict[str, GradientShare]
    mass: Tensor
    alignment: float
    uniformity: float
    tolerance: float | None
    found: float


class FreePoints:
    """Anchors and positives as parameters on the unit sphere, trained with `DLELoss`.

    Some rows are twins: two rows with the same meaning, which start side by side. Without `spare_twins` the loss treats
    them as negatives of each other (false negatives).

    Args:
        rows: Number of pairs, at least 4.
        dimension: Dimension of the points; 2 is a circle, where points cannot pass each other, 3 a sphere.
        twins: Share of the rows that have a twin, in [0, 1].
        seed: Seed for positions, scores and batches.
        learning_rate: Step size of plain gradient descent.

    Attributes:
        points: (2, rows, dimension), anchors and positives.
        classes: (rows,) int, equal for twins.
        scores: (rows,), the known similarity of each pair, from 0.4 to 1.
        batch: (batch size,) int, the rows of the next step.
        steps: Number of steps so far.

    Raises:
        ValueError: A number out of range.

    Example:
        >>> from st_vi.viz.free_points import ALL_TERMS, FreePoints
        >>> points = FreePoints(rows=8)
        >>> before = points.look(ALL_TERMS).alignment
        >>> for _ in range(20):
        ...     points.step(ALL_TERMS)
        >>> points.look(ALL_TERMS).alignment < before
        True
    """

    def __init__(
        self, rows: int = 24, dimension: int = 3, twins: float = 0.0, seed: int = 0, learning_rate: float = 0.1
    ) -> None:
        if rows < 4 or dimension < 2 or not 0 <= twins <= 1:
            raise ValueError(
                f"there must be 4 rows, 2 dimensions and a share of twins in [0, 1], got {rows}, {dimension}, {twins}"
            )
        self.generator = torch.Generator().manual_seed(seed)
        self.scores = torch.linspace(0.4, 1.0, rows)[torch.randperm(rows, generator=self.generator)]
        row = torch.arange(rows)
        self.classes = torch.where(row < 2 * round(twins * rows / 2), row // 2, row)
        centres = torch.randn(2, rows, dimension, generator=self.generator)[:, self.classes]
        noise = torch.randn(2, rows, dimension, generator=self.generator)
        self.points = F.normalize(F.normalize(centres, dim=-1) + 0.1 * noise, dim=-1).requires_grad_()
        self.optimizer = torch.optim.SGD([self.points], lr=learning_rate)
        self.steps = 0
        self.draw(rows)

    def draw(self, batch_size: int) -> None:
        """Choose the rows of the next step."""
        if not 2 <= batch_size <= len(self.classes):
            raise ValueError(f"the batch size must lie between 2 and {len(self.classes)}, got {batch_size}")
        self.batch = torch.randperm(len(self.classes), generator=self.generator)[:batch_size]

    def step(self, terms: Sequence[Term], spare_twins: bool = False) -> None:
        """Take one gradient step on the batch, project onto the sphere, and draw a new batch of the same size."""
        components, _, _ = self._loss(terms, spare_twins)
        self.optimizer.zero_grad()
        sum(components.values()).backward()  # type: ignore[union-attr]
        self.optimizer.step()
        with torch.no_grad():
            self.points.copy_(F.normalize(self.points, dim=-1))
        self.steps += 1
        self.draw(len(self.batch))

    def look(self, terms: Sequence[Term], spare_twins: bool = False) -> Moment:
        """Measure the points, and the loss on the batch of the next step; a term with weight 0 has no effect.

        With `spare_twins`, twins get equal texts, so that they are not negatives of each other (`mask_duplicates`).
        """
        components, batch, pairs = self._loss(terms, spare_twins)
        temperature = next((term.temperature for term in terms if hasattr(term, "temperature")), 1.0)
        anchors, positives = self.points.detach()
        have_twins = len(self.classes.unique()) < len(self.classes)
        return Moment(
            components={name: value.item() for name, value in components.items()},
            shares=gradient_shares(components, batch),
            mass=self._mass(pairs, temperature),
            alignment=alignment(anchors, positives).item(),
            uniformity=(uniformity(anchors).item() + uniformity(positives).item()) / 2,
            tolerance=tolerance(anchors, self.classes).item() if have_twins else None,
            found=(self.classes[(anchors @ positives.T).argmax(dim=1)] == self.classes).float().mean().item(),
        )

    def _loss(self, terms: Sequence[Term], spare_twins: bool) -> tuple[dict[str, Tensor], Tensor, PairBatch]:
        task, batch = Task("points", "", tuple(terms)), self.points[:, self.batch]
        loss, seen = DLELoss(None, (task,)), []  # type: ignore[arg-type]
        loss.observer = lambda name, term, pairs, values: seen.append(pairs)
        labels = torch.stack([torch.zeros(len(self.batch)), self.scores[self.batch]], dim=1)
        classes = self.classes[self.batch]
        ids = [classes, classes + len(self.classes)] if spare_twins else None
        values = loss.compute_loss_from_embeddings(list(batch), labels, ids)
        names = {name: type(term).__name__ for name, term in task.components.items()}
        return {names[name]: value for name, value in values.items()}, batch, seen[0]

    def _mass(self, pairs: PairBatch, temperature: float) -> Tensor:
        view, classes = pairs.anchor_view, self.classes[self.batch]
        has_negatives = view.negative.any(dim=1)
        similarities = view.similarity.detach().masked_fill(~view.negative, -torch.inf)[has_negatives]
        if not len(similarities):
            return torch.zeros(2, len(classes) - 1)
        penalty, candidates = relative_penalty(similarities, temperature).sort(dim=1, descending=True)
        is_twin = (classes[:, None] == classes)[has_negatives].gather(1, candidates)
        return torch.stack([(penalty * ~is_twin).mean(dim=0), (penalty * is_twin).mean(dim=0)])[:, :-1]
