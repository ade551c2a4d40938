"""Each system as model, training arguments, loss and evaluator."""

from st_vi.recipes.viclsr import build_viclsr, train_viclsr, viclsr_training_arguments

__all__ = ["build_viclsr", "train_viclsr", "viclsr_training_arguments"]
