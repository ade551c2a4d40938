"""Model, training arguments, loss and evaluator of each system."""

from st_vi.recipes.distil.encoder import distill_encoder
from st_vi.recipes.lora import lora_config, merge_lora
from st_vi.recipes.merging import merge_models, search_merge
from st_vi.recipes.router import train_router
from st_vi.recipes.viclsr import build_viclsr, train_viclsr, viclsr_training_arguments
from st_vi.recipes.vipolyqwen import (
    build_vipolyqwen,
    train_vipolyqwen,
    vipolyqwen_evaluator,
    vipolyqwen_training_arguments,
)

__all__ = [
    "build_viclsr",
    "build_vipolyqwen",
    "distill_encoder",
    "lora_config",
    "merge_lora",
    "merge_models",
    "search_merge",
    "train_router",
    "train_viclsr",
    "train_vipolyqwen",
    "viclsr_training_arguments",
    "vipolyqwen_evaluator",
    "vipolyqwen_training_arguments",
]
