"""Loss terms: small frozen dataclasses, each read beside its equation, over one shared `PairBatch`."""

from st_vi.terms.contrastive import InfoNCE
from st_vi.terms.pairs import Direction, PairBatch

__all__ = ["Direction", "InfoNCE", "PairBatch"]
