"""Losses for the stock `SentenceTransformerTrainer`, built from the terms in `st_vi.terms`."""

from st_vi.losses.balance import (
    Balance,
    DynamicWeightAverage,
    EqualGradientNorm,
    GradNorm,
    PCGrad,
    UncertaintyWeighting,
)
from st_vi.losses.cached import CachedDLELoss, CachedSupConNLILoss
from st_vi.losses.dle import DLELoss
from st_vi.losses.keeper import LossKeeper
from st_vi.losses.monitor import DLEMonitor
from st_vi.losses.next_token import CachedNextTokenLoss, NextTokenLoss
from st_vi.losses.rating import RatingLoss
from st_vi.losses.supcon_nli import SupConNLILoss
from st_vi.losses.warm_up import InfoNCEWarmUp

__all__ = [
    "Balance",
    "CachedDLELoss",
    "CachedNextTokenLoss",
    "CachedSupConNLILoss",
    "DLELoss",
    "DLEMonitor",
    "DynamicWeightAverage",
    "EqualGradientNorm",
    "GradNorm",
    "InfoNCEWarmUp",
    "LossKeeper",
    "NextTokenLoss",
    "PCGrad",
    "RatingLoss",
    "SupConNLILoss",
    "UncertaintyWeighting",
]
