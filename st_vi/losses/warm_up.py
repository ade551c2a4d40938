"""Training with InfoNCE only at first, and then with all terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from st_vi.losses.dle import DLELoss
from st_vi.losses.own_model import own_losses
from st_vi.tasks import Task
from st_vi.terms import InfoNCE


class InfoNCEWarmUp(TrainerCallback):
    """Sets the weight of every term except InfoNCE to 0 for the first part of training.

    For models that are randomly initialised, or have a randomly initialised vision tower. As long as a model cannot
    distinguish inputs, `HardestNegativeMargin` drives all vectors to the same point, where the loss equals the margin,
    and they stay there. (FaceNet, arXiv 1503.03832, Section 3.2, reports the same and uses semi-hard negatives.) The
    names of the loss components do not change, and training can be resumed at any step. Evaluations have all terms, so
    that their losses can be compared.

    Source: original; viPolyQwen starts from pretrained weights.

    Args:
        loss: The loss of the trainer, also as a dict, or inside of others.
        share: Share of the training steps with InfoNCE only, in [0, 1].

    Raises:
        ValueError: `share` is out of range, or there is no `DLELoss`.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import InfoNCEWarmUp
        >>> loss = DLELoss(model=None)
        >>> callbacks = [InfoNCEWarmUp(loss, share=0.4)]  # for SentenceTransformerTrainer(..., callbacks=callbacks)
    """

    def __init__(self, loss: nn.Module | Mapping[str, nn.Module], share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share must lie between 0 and 1, got {share}")
        self.share = share
        self._tasks = {own: (own.tasks, _info_nce_alone(own.tasks)) for own in own_losses(loss, DLELoss)}
        if not self._tasks:
            raise ValueError(f"InfoNCEWarmUp needs a DLELoss, got {loss!r}")

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Choose the terms by the number of steps done so far."""
        early = state.global_step < self.share * state.max_steps
        for loss, (all_terms, info_nce_alone) in self._tasks.items():
            loss.tasks = info_nce_alone if early else all_terms

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Restore all terms of the loss, for evaluations, model cards, and after the training."""
        for loss, (all_terms, _) in self._tasks.items():
            loss.tasks = all_terms


def _info_nce_alone(tasks: Sequence[Task]) -> tuple[Task, ...]:
    return tuple(
        replace(task, terms=tuple(t if isinstance(t, InfoNCE) else replace(t, weight=0.0) for t in task.terms))
        for task in tasks
    )
