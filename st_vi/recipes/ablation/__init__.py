"""Ablation of viPolyQwen: the same training with one change at a time, over seeds."""

from st_vi.recipes.ablation.run import BASELINE, VARIANTS, Study, Variant, ablate, read_results

__all__ = ["BASELINE", "VARIANTS", "Study", "Variant", "ablate", "read_results"]
