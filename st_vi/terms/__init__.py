"""Loss terms: small frozen dataclasses, each read beside its equation, over one shared `PairBatch`."""

from st_vi.terms.contrastive import HardestNegativeMargin, InfoNCE
from st_vi.terms.pairs import Direction, PairBatch
from st_vi.terms.scored import CosineAlignment, PairwiseRank, ScoreMSE

__all__ = [
    "CosineAlignment",
    "Direction",
    "HardestNegativeMargin",
    "InfoNCE",
    "PairBatch",
    "PairwiseRank",
    "ScoreMSE",
]
