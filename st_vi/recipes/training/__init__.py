"""Training with the stock trainer: output folders, checkpoints, Ctrl-C, best model, progress bar."""
