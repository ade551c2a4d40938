"""Training with the stock trainer: output folders, checkpoints, Ctrl-C, best model, progress bar."""

from st_vi.recipes.training.run import train

__all__ = ["train"]
