"""Logging of every term of `DLELoss`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from st_vi.losses.dle import DLELoss
from st_vi.losses.own_model import check_own_model, own_losses
from st_vi.terms import PairBatch, PairwiseRank, Term


class DLEMonitor(TrainerCallback):
    """Logs the mean of each term of `DLELoss` over the rows that it applies to.

    The trainer averages the components over all steps and rows, which makes a rare task look nearly solved. Here each
    mean is unweighted and over the rows of the task, or, for terms that need a score, over its rows with a score.
    Ranking terms also log the share of correctly ordered pairs (chance is 0.5), and the loss of a model that finds all
    pairs equally similar, which is the margin.

    Adds to each entry of the training log: ``dle/{component}``, and for ranking terms ``dle/{component}_in_order``
    and ``dle/{component}_constant``. If the loss has a `balance`, also ``dle/{component}_weight``, the mean weight of
    the component in the batches that had rows of it. With several devices, only the rows of the first one are used.

    Args:
        *losses: The losses of the trainer, also as a dict or inside of others; those of other classes are ignored.

    Raises:
        ValueError: There is no `DLELoss` among the losses; or, at the start of training, one was created with another
            model than that of the trainer.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import DLEMonitor
        >>> loss = DLELoss(model=None)
        >>> callbacks = [DLEMonitor(loss)]  # for SentenceTransformerTrainer(..., loss=loss, callbacks=callbacks)
    """

    def __init__(self, *losses: nn.Module | Mapping[str, nn.Module]) -> None:
        self._totals: dict[str, tuple[Tensor, Tensor]] = {}
        self._constants: dict[str, float] = {}
        self._losses = own_losses(dict(enumerate(losses)), DLELoss)
        if losses and not self._losses:
            raise ValueError("DLEMonitor logs the terms of a DLELoss, and there is none among these losses")
        for loss in self._losses:
            loss.observer = self._observe

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Reject losses created with another model."""
        for loss in self._losses:
            check_own_model(loss, kwargs["model"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Add the means since the last training log, and reset them."""
        if not logs or "loss" not in logs:  # an evaluation, or the end of training
            return
        for loss in self._losses:
            for name, (total, count) in (loss.balance.take_log() if loss.balance else {}).items():
                self._add(f"{name}_weight", total, count)
        figures = {f"dle/{name}": float(total / count) for name, (total, count) in self._totals.items() if count}
        figures |= {f"dle/{name}_constant": margin for name, margin in self._constants.items()}
        logs |= figures
        state.log_history[-1] |= figures
        self._totals.clear()
        self._constants.clear()

    def _observe(self, name: str, term: Term, pairs: PairBatch, values: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        applies = torch.ones_like(values, dtype=torch.bool)
        if term.needs_score:
            applies = ~pairs.own(pairs.known_scores).isnan()
        self._add(name, values.sum(), applies.sum())
        if isinstance(term, PairwiseRank):
            self._add(f"{name}_in_order", *PairwiseRank.in_order(pairs))
            self._constants[name] = term.margin

    def _add(self, name: str, total: Tensor, count: Tensor) -> None:
        old_total, old_count = self._totals.get(name, (0, 0))
        self._totals[name] = total + old_total, count + old_count
