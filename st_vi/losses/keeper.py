"""The state of losses in the stock trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from st_vi.losses.balance import Balance
from st_vi.losses.balance.processes import mean_of_processes
from st_vi.losses.dle import DLELoss
from st_vi.losses.learned import LearnedParameters
from st_vi.losses.own_model import own_losses

RATE = 0.025
"""A learning rate for parameters of a loss."""


class LossKeeper(TrainerCallback, ExportableState):
    """Keeps the state of losses: that of balances, and the parameters of learned terms such as `SimLAP`.

    It changes the state of balances after each optimizer step, and saves and restores all of it with checkpoints: it is
    in the ``trainer_state.json``, since the trainer saves the weights of a model, but not those of a loss. A
    resumed run goes on as if it had not been interrupted.

    Parameters of a loss are trained by the optimizer of the trainer, whose weight decay would pull them to 0: the
    keeper switches it off for them. They need a learning rate of their own, from the stock `learning_rate_mapping`.
    With several processes, the keeper averages the gradients of learned terms, which are not in the model's DDP.

    `train_vipolyqwen` adds a keeper by itself. `DLEMonitor` logs the weights of balances.

    Args:
        *losses: The losses of the trainer, also as a dict or inside of others; those without a state are ignored.

    Raises:
        ValueError: At the start of training, if parameters of a loss share the learning rate of the model, the model is
            trained with DeepSpeed or FSDP, whose optimizers have only the parameters of the model, or the checkpoint
            has no state of these losses.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import GradNorm, LossKeeper
        >>> loss = DLELoss(model=None, balance=GradNorm())
        >>> callbacks = [LossKeeper(loss)]  # for SentenceTransformerTrainer(..., loss=loss, callbacks=callbacks)
    """

    def __init__(self, *losses: nn.Module | Mapping[str, nn.Module]) -> None:
        own = own_losses(dict(enumerate(losses)), DLELoss)
        self._learned: list[LearnedParameters] = [loss.learned for loss in own if len(loss.learned)]
        balances: list[Balance] = [loss.balance for loss in own if loss.balance is not None]
        self._parts: list[Balance | LearnedParameters] = [*balances, *self._learned]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the state of a checkpoint, and check the optimizer."""
        if not self._parts:
            raise ValueError(
                "LossKeeper has no loss with a state: pass it the losses of the trainer, and leave "
                "restore_callback_states_from_checkpoint off, which creates an empty one"
            )
        _own_groups(self._parts, args, kwargs["optimizer"])
        if state.global_step:
            self._restore(state)
        for part in self._parts:
            part.start()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Average the gradients of learned terms over all processes; a process may have had no row of a term."""
        for learned in self._learned:
            for value in learned.values():
                value.grad = mean_of_processes(torch.zeros_like(value) if value.grad is None else value.grad)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Change the state."""
        for part in self._parts:
            part.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next training needs a keeper, too."""
        for part in self._parts:
            part.started = False

    def state(self) -> dict[str, Any]:
        """What the trainer saves."""
        return {"args": {}, "attributes": {"saved": [part.state() for part in self._parts]}}

    def _restore(self, state: TrainerState) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__, {})  # type: ignore[union-attr]
        states = saved["attributes"]["saved"] if isinstance(saved, dict) and saved else None
        if states is None or len(states) != len(self._parts):
            names = ", ".join(type(part).__name__ for part in self._parts)
            raise ValueError(
                f"the checkpoint does not have the state of {names}: it is of a training with other losses or more "
                "than one LossKeeper"
            )
        for part, one in zip(self._parts, states, strict=True):
            part.restore(one)


def own_parameters(part: Balance | LearnedParameters) -> dict[str, Parameter]:
    """The parameters of a part of a loss, by the end of their names in the loss.

    Example:
        >>> from st_vi.losses import GradNorm
        >>> from st_vi.losses.keeper import own_parameters
        >>> balance = GradNorm()
        >>> balance.bind(["a", "b"])
        >>> list(own_parameters(balance))
        ['balance.task_weights']
    """
    room = "balance" if isinstance(part, Balance) else "learned"
    return {f"{room}.{name}": parameter for name, parameter in part.named_parameters()}


def _own_groups(parts: Sequence[Balance | LearnedParameters], args: TrainingArguments, optimizer: Optimizer) -> None:
    """Switch weight decay off for the parameters of losses, and check that nothing else is in their groups."""
    own = {
        id(parameter): (type(part).__name__ if isinstance(part, Balance) else name.split(".")[1], name)
        for part in parts
        for name, parameter in own_parameters(part).items()
    }
    if not own:
        return
    missing = dict(own)
    for group in optimizer.param_groups:
        mine = [missing.pop(id(p)) for p in group["params"] if id(p) in own]
        if mine and len(mine) < len(group["params"]):
            owner, name = mine[0]
            raise ValueError(
                f"{owner} needs a learning rate of its own, as that of the model would hardly move its parameters: "
                f"learning_rate_mapping={{{name!r}: {RATE}}}"
            )
        if mine:
            group["weight_decay"] = 0.0
    for owner, name in own.values() if args.deepspeed or args.fsdp else missing.values():
        raise ValueError(
            f"{owner} cannot be trained here: its {name} must be in the optimizer, and DeepSpeed and FSDP leave out "
            "what is not in the model. Use a strategy, or a term, without parameters"
        )
