"""The base class of all loss terms."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from torch import Tensor

from st_vi.checks import check_choice
from st_vi.terms.pairs import PairBatch


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """A loss term: called with the pairs of a batch, it returns the loss of each row.

    To write one, inherit as a frozen, keyword-only dataclass whose fields are the settings of the term. A term that
    trains on more than pairs says so in a class attribute, and rows are checked for it before training.

    Args:
        weight: Factor of the term in the loss of its task.

    Attributes:
        needs_score: A row needs a score.
        needs_teacher: A row needs a teacher's score of each of its candidates.
        needs_teacher_vectors: A row needs a teacher's vector of at least one of its texts.
        needs_class: A row needs a class.
        needs_positive: A row needs a positive. False for terms that look at each input alone.
        needs_all_rows: The value of a row depends on which other rows are own rows. No term of this package does; the
            cached losses evaluate such a term for all rows together instead of block by block, with a warning.

    Raises:
        ValueError: The weight is not finite, a field is NaN, or the field `temperature`, where a term has one, is not
            positive and finite.

    Example:
        >>> from dataclasses import dataclass
        >>> import torch
        >>> from st_vi.terms import PairBatch, Term
        >>> @dataclass(frozen=True, kw_only=True)
        ... class SquaredDistance(Term):
        ...     def __call__(self, pairs):
        ...         return 2 - 2 * pairs.own_cosine
        >>> SquaredDistance(weight=0.5)(PairBatch(torch.eye(2), torch.eye(2)))
        tensor([0., 0.])
    """

    weight: float = 1.0
    needs_score: ClassVar[bool] = False
    needs_teacher: ClassVar[bool] = False
    needs_teacher_vectors: ClassVar[bool] = False
    needs_class: ClassVar[bool] = False
    needs_positive: ClassVar[bool] = True
    needs_all_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._require_finite("weight")
        for part in fields(self):
            value = getattr(self, part.name)
            self._require(part.name, not (isinstance(value, float) and math.isnan(value)), "a number")
        if hasattr(self, "temperature"):
            self._require("temperature", self.temperature > 0, "positive")
            self._require_finite("temperature")

    @abstractmethod
    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,), before `weight`; 0 with a finite gradient for a row without negatives."""

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{name} must be {what}, got {getattr(self, name)!r}")

    def _require_finite(self, *names: str) -> None:
        for name in names:
            self._require(name, math.isfinite(getattr(self, name)), "finite")

    def _require_one_of(self, name: str, choices: Any) -> None:
        check_choice(name, getattr(self, name), choices)
