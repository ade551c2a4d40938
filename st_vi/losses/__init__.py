"""Losses for the stock `SentenceTransformerTrainer`, built from the terms in `st_vi.terms`."""

from st_vi.losses.cached import CachedDLELoss, CachedSupConNLILoss
from st_vi.losses.dle import DLELoss
from st_vi.losses.monitor import DLEMonitor
from st_vi.losses.supcon_nli import SupConNLILoss
from st_vi.losses.warm_up import InfoNCEWarmUp

__all__ = ["CachedDLELoss", "CachedSupConNLILoss", "DLELoss", "DLEMonitor", "InfoNCEWarmUp", "SupConNLILoss"]
