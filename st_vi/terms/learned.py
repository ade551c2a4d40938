"""The base class of loss terms with parameters of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class LearnedTerm(Term):
    """A loss term with parameters that are trained together with the model.

    To write one, return their first values in `initial`, and read `parameters` in `__call__`. It is a single tensor: a
    term with several kinds of parameters packs them into one.

    Settings stay settings: `DLELoss` trains a copy of `parameters`, so that a term in a list of tasks never changes,
    and two losses with the same tasks share nothing. The trained values are in ``loss.learned``, by the name of the
    component. In the stock trainer they need a `LossKeeper`, and a learning rate of their own.

    Args:
        parameters: To go on from other values than those of `initial`.
        weight: Weight of the term in a task.

    Raises:
        ValueError: The parameters have another shape than those of `initial`.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from st_vi.terms import LearnedTerm, PairBatch
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Offset(LearnedTerm):
        ...     def initial(self):
        ...         return torch.zeros(1)
        ...
        ...     def __call__(self, pairs):
        ...         return (pairs.own_cosine - self.parameters) ** 2
        >>> Offset(parameters=torch.tensor([0.5]))(PairBatch(torch.eye(2), torch.eye(2)))
        tensor([0.2500, 0.2500])
    """

    parameters: Tensor = field(default=None, repr=False, compare=False)  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parameters is None:
            object.__setattr__(self, "parameters", self.initial())
            return
        with torch.device("meta"):  # for the shape alone
            expected = self.initial().shape
        if self.parameters.shape != expected:
            raise ValueError(f"parameters must be {tuple(expected)}, got {tuple(self.parameters.shape)}")

    @abstractmethod
    def initial(self) -> Tensor:
        """The parameters before training, of any shape."""
