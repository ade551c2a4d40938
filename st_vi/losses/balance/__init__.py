"""Strategies that weight the terms of `DLELoss` against each other, a file each."""

from __future__ import annotations

from typing import Literal, get_args

from st_vi.losses.balance.base import Balance
from st_vi.losses.balance.dynamic_weight_average import DynamicWeightAverage
from st_vi.losses.balance.equal_gradient_norm import EqualGradientNorm
from st_vi.losses.balance.grad_norm import GradNorm
from st_vi.losses.balance.pc_grad import PCGrad
from st_vi.losses.balance.uncertainty import UncertaintyWeighting

BalanceName = Literal["uncertainty", "grad_norm", "dynamic_weight_average", "equal_gradient_norm", "pc_grad"]

BALANCES: dict[str, type[Balance]] = {
    "uncertainty": UncertaintyWeighting,
    "grad_norm": GradNorm,
    "dynamic_weight_average": DynamicWeightAverage,
    "equal_gradient_norm": EqualGradientNorm,
    "pc_grad": PCGrad,
}
"""The strategies by name."""

__all__ = [
    "Balance",
    "DynamicWeightAverage",
    "EqualGradientNorm",
    "GradNorm",
    "PCGrad",
    "UncertaintyWeighting",
]


def balance_of(balance: Balance | BalanceName | None) -> Balance | None:
    """A strategy, or the one of that name with its default settings.

    Raises:
        ValueError: There is no strategy of that name.

    Example:
        >>> from st_vi.losses.balance import balance_of
        >>> balance_of("grad_norm")
        GradNorm(alpha=1.5)
    """
    if balance is None or isinstance(balance, Balance):
        return balance
    if balance not in BALANCES:
        raise ValueError(f"balance must be a Balance, None, or one of {get_args(BalanceName)}, got {balance!r}")
    return BALANCES[balance]()
