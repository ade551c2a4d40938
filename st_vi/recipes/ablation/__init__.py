"""What each part of viPolyQwen is worth: the same training with one thing changed, over seeds."""

from st_vi.recipes.ablation.run import BASELINE, VARIANTS, Study, Variant, ablate, read_results

__all__ = ["BASELINE", "VARIANTS", "Study", "Variant", "ablate", "read_results"]
