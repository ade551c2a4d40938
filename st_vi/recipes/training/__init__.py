"""What every recipe does around the stock trainer: folders, checkpoints, Ctrl-C, the best model, the bar."""

from st_vi.recipes.training.run import train

__all__ = ["train"]
