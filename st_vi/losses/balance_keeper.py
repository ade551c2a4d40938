"""The state of balanced losses in the stock trainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from st_vi.losses.balance import Balance
from st_vi.losses.dle import DLELoss


class BalanceKeeper(TrainerCallback, ExportableState):
    """Changes the state of balanced losses after each optimizer step, and saves and restores it with checkpoints.

    The state is in the ``trainer_state.json`` of a checkpoint, since the trainer saves the weights of a model, but not
    those of a loss. A training that is resumed goes on as if it had not been interrupted.

    The parameters of a strategy (`UncertaintyWeighting`, `GradNorm`) are trained by the optimizer of the trainer, whose
    weight decay would pull them to 0: the keeper switches it off for them. They need a learning rate of their own, from
    the stock argument `learning_rate_mapping`.

    `train_vipolyqwen` adds a keeper by itself. `DLEMonitor` logs the weights.

    Args:
        *losses: The losses of the trainer; those without a strategy are ignored.

    Raises:
        ValueError: At the start of training, if parameters of a strategy share the learning rate of the model, the
            model is trained with DeepSpeed or FSDP, whose optimizers have only the parameters of the model, or the
            checkpoint has no state of these strategies.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import BalanceKeeper, GradNorm
        >>> loss = DLELoss(model=None, balance=GradNorm())
        >>> callbacks = [BalanceKeeper(loss)]  # for SentenceTransformerTrainer(..., loss=loss, callbacks=callbacks)
    """

    def __init__(self, *losses: DLELoss) -> None:
        self._balances: list[Balance] = [loss.balance for loss in losses if loss.balance is not None]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore the state of a checkpoint, and check the optimizer."""
        if not self._balances:
            raise ValueError(
                "BalanceKeeper has no balanced loss: pass it the losses of the trainer, and leave "
                "restore_callback_states_from_checkpoint off, which creates an empty one"
            )
        _own_groups(self._balances, args, kwargs["optimizer"])
        if state.global_step:
            self._restore(state)
        for balance in self._balances:
            balance.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Change the state."""
        for balance in self._balances:
            balance.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The next training needs a keeper, too."""
        for balance in self._balances:
            balance.started = False

    def state(self) -> dict[str, Any]:
        """What the trainer saves."""
        return {"args": {}, "attributes": {"saved": [balance.state() for balance in self._balances]}}

    def _restore(self, state: TrainerState) -> None:
        saved = state.stateful_callbacks.get(type(self).__name__, {})  # type: ignore[union-attr]
        states = saved["attributes"]["saved"] if isinstance(saved, dict) and saved else None
        if states is None or len(states) != len(self._balances):
            names = ", ".join(type(balance).__name__ for balance in self._balances)
            raise ValueError(
                f"the checkpoint does not have the state of {names}: it is of a training with other strategies or more "
                "than one BalanceKeeper"
            )
        for balance, one in zip(self._balances, states, strict=True):
            balance.restore(one)


def _own_groups(balances: Sequence[Balance], args: TrainingArguments, optimizer: Optimizer) -> None:
    """Switch weight decay off for the parameters of strategies, and check that nothing else is in their groups."""
    own = {id(p): (type(b).__name__, name) for b in balances for name, p in b.named_parameters()}
    if not own:
        return
    missing = dict(own)
    for group in optimizer.param_groups:
        mine = [missing.pop(id(p)) for p in group["params"] if id(p) in own]
        if mine and len(mine) < len(group["params"]):
            strategy, name = mine[0]
            raise ValueError(
                f"{strategy} needs a learning rate of its own, as that of the model would hardly move its parameters: "
                f"learning_rate_mapping={{{name!r}: 0.025}}"
            )
        if mine:
            group["weight_decay"] = 0.0
    for strategy, name in own.values() if args.deepspeed or args.fsdp else missing.values():
        raise ValueError(
            f"{strategy} cannot be trained here: its {name} must be in the optimizer, and DeepSpeed and FSDP leave out "
            "what is not in the model. Use a strategy without parameters"
        )
