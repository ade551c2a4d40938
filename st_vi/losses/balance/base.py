"""The base class of all strategies that weight the terms of `DLELoss`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

_ROUNDING = 1e-5
"""Of a loss in fp32: 1 − cos of a vector with itself can be −1e-7."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a strategy may know of a batch, the same in all processes, for K components.

    Attributes:
        losses: (K,), the mean of each term over the rows of its task, times its constant weight; 0 without rows.
        shares: (K,) in [0, 1], the rows of the term's task as a share of the batch; 0 if its constant weight is 0.
        gram: (K, K), scalar products of the gradients of the components at the embeddings; None if not needed.
    """

    losses: Tensor
    shares: Tensor
    gram: Tensor | None = None


class Balance(nn.Module, ABC):
    """How the terms of a `DLELoss` are weighted against each other.

    A component is a term of a task: c_k = n_t/B · w_k · (mean of the term over the n_t rows of its task), with the
    constant weight w_k of the term. A strategy gives each component a further weight λ_k, and the loss is Σ_k λ_k c_k;
    without a strategy, all λ_k are 1. The gradient does not flow through λ_k. Where the gradients of the components
    are needed, they are those at the embeddings of the batch, column by column, and not those of all weights.

    A component has no say in a batch without rows of its task, or while its constant weight is 0: it adds nothing to
    the loss, and nothing is learned about it. In evaluation (without gradients), the loss is that of the constants, so
    that it can be compared between steps and strategies.

    With several processes, the strategy sees the rows of all of them. With gradient accumulation, it weights each
    batch, and its state changes once per optimizer step.

    To write one, inherit, create the state in `create`, and return the weights in `weights`.

    Attributes:
        components: Names of the components, such as "ocr_info_nce"; empty until a loss is created with the strategy.
        started: Whether `start` was called.
        needs_gradients: `weights` or `penalty` needs `Measured.gram`.
        needs_positive_losses: A negative loss is an error.

    Example:
        >>> from st_vi import DLELoss
        >>> from st_vi.losses import PCGrad
        >>> loss = DLELoss(model=None, balance=PCGrad())
        >>> loss.balance.components[:2]
        ('text_pair_info_nce', 'text_pair_score_mse')
    """

    needs_gradients: ClassVar[bool] = False
    needs_positive_losses: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.components: tuple[str, ...] = ()
        self.started = False
        self._logged: tuple[Tensor, Tensor] | None = None

    def create(self, count: int) -> None:
        """Create the state for so many components, as parameters and buffers."""

    @abstractmethod
    def weights(self, gram: Tensor | None) -> Tensor:
        """λ, (K,), without a graph; `gram` as in `Measured`."""

    def observe(self, batch: Measured) -> None:
        """Update the state with a batch."""

    def penalty(self, batch: Measured) -> Tensor | None:
        """What each component adds to the loss for the parameters of the strategy, (K,); None without parameters."""
        return None

    def step(self) -> None:
        """Change the state after an optimizer step."""

    def start(self) -> None:
        """Say that `step` will be called after every optimizer step, as `LossKeeper` does in the trainer."""
        self.started = True

    def bind(self, components: Sequence[str]) -> None:
        """Create the state for these components; `DLELoss` calls it.

        Raises:
            ValueError: The strategy is that of another loss.
        """
        if self.components:
            raise ValueError(f"{self._name} belongs to another loss: create one for each loss")
        self.components = tuple(components)
        self.create(len(self.components))

    def check_ready(self) -> None:
        """Check that the state will be kept.

        Raises:
            ValueError: `start` was not called.
        """
        if not self.started and self.state_dict():
            raise ValueError(
                f"{self._name} changes with every optimizer step: give the trainer callbacks=[LossKeeper(loss)]; in "
                "a loop of your own, call loss.balance.start() before it and loss.balance.step() after optimizer.step()"
            )

    def note(self, batch: Measured, weights: Tensor) -> Measured:
        """Check and observe a batch, and add its weights to those of `take_log`.

        Returns:
            The batch as observed: where losses must not be negative, what rounding leaves below 0 is 0.
        """
        if self.needs_positive_losses:
            if (batch.losses < -_ROUNDING).any():
                name, value = min(zip(self.components, batch.losses.tolist(), strict=True), key=lambda pair: pair[1])
                raise ValueError(f"{self._name} needs losses of at least 0, and {name} is {value:.4g}")
            batch = replace(batch, losses=batch.losses.clamp(min=0))
        self.observe(batch)
        had_rows = (batch.shares > 0).to(weights.dtype)
        total, count = self._logged or (0.0, 0.0)
        self._logged = (torch.where(had_rows > 0, weights, 0.0) + total, had_rows + count)
        return batch

    def take_log(self) -> dict[str, tuple[Tensor, Tensor]]:
        """For each component, its weights since the last call added up, and the number of batches that had its rows."""
        logged, self._logged = self._logged, None
        if logged is None:
            return {}
        return {name: pair for name, *pair in zip(self.components, *logged, strict=True)}  # type: ignore[misc]

    def state(self) -> dict[str, Any]:
        """The state as plain numbers, for JSON."""
        values = {name: tensor.tolist() for name, tensor in self.state_dict().items()}
        return {"strategy": self._name, "components": list(self.components), "values": values}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the result of `state`.

        Raises:
            ValueError: It is the state of another strategy, or has other components.
        """
        for name, own in (("strategy", self._name), ("components", list(self.components))):
            if state.get(name) != own:
                raise ValueError(
                    f"{self._name} cannot go on from this state: its {name} is {state.get(name)}, not {own}"
                )
        values = state["values"].items()
        self.load_state_dict({name: torch.tensor(value, dtype=torch.float64) for name, value in values})

    @property
    def _name(self) -> str:
        return type(self).__name__
