"""Training arguments: what the recipes have in common, and a check that they train anything at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers import TrainerState


def common_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock arguments: an evaluation and a checkpoint each epoch, two checkpoints kept, bf16 where the GPU has it."""
    defaults: dict[str, Any] = {
        "warmup_steps": 0.1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 0.05,
        "report_to": "none",
        "dataloader_pin_memory": torch.accelerator.is_available(),  # a warning where there is none
        "bf16": torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
    }
    return SentenceTransformerTrainingArguments(output_dir=str(output_dir), **defaults | arguments)


def check_arguments(arguments: SentenceTransformerTrainingArguments) -> None:
    """Check, before anything is written, that training with these arguments has an effect.

    Example:
        >>> check_arguments(common_arguments("outputs", num_train_epochs=0))
        Traceback (most recent call last):
        ValueError: num_train_epochs must be more than 0, got 0: nothing would be trained
    """
    if arguments.resume_from_checkpoint is not None:  # the trainer does not read it, it is for scripts
        raise ValueError("resume_from_checkpoint has no effect: resume=True continues from the last checkpoint")
    by_name = arguments.learning_rate_mapping
    rates = [arguments.learning_rate, *(by_name.values() if isinstance(by_name, dict) else ())]
    wrong = {
        "num_train_epochs": not (arguments.max_steps > 0 or 0 < arguments.num_train_epochs < math.inf),
        "per_device_train_batch_size": arguments.per_device_train_batch_size < 1,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps < 1,
        "learning_rate": not (all(0 <= rate < math.inf for rate in rates) and any(rates)),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"{name} must be more than 0, got {getattr(arguments, name)}: nothing would be trained")


def count_steps(arguments: SentenceTransformerTrainingArguments, checkpoint: TrainerState) -> None:
    """Replace fractions of the run, such as ``logging_steps=0.05``, by the steps that a checkpoint has, in place.

    The trainer counts the same, but compares the checkpoint's steps with the fractions, and warns that they differ.

    Example:
        >>> arguments = common_arguments("outputs", logging_steps=0.05)
        >>> count_steps(arguments, TrainerState(logging_steps=3))
        >>> arguments.logging_steps
        3
    """
    for name in ("logging_steps", "eval_steps", "save_steps"):
        if 0 < (getattr(arguments, name) or 0) < 1:
            setattr(arguments, name, getattr(checkpoint, name))
