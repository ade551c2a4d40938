"""Training arguments: what the recipes have in common, and a check that they train anything at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainingArguments
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

# fmt: off
_NUMBERS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate",
    "weight_decay", "max_grad_norm",
)
# fmt: on


def common_arguments(output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    """Stock arguments: an evaluation and a checkpoint each epoch, two checkpoints kept, bf16 where the GPU has it."""
    defaults: dict[str, Any] = {
        "warmup_steps": 0.1,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "save_total_limit": 2,
        "logging_steps": 0.05,
        "report_to": "none",
        # Accelerate would cut all tensors of a stream's batch at the number of rows, that of the patches of images too.
        "accelerator_config": {"dispatch_batches": False},
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
    for name in _NUMBERS:
        if not isinstance(value := getattr(arguments, name), Real):  # as in YAML, where 1e-5 is a text
            raise ValueError(f"{name} must be a number, got {value!r}")
    by_name = arguments.learning_rate_mapping if isinstance(arguments.learning_rate_mapping, dict) else {}
    for pattern, rate in by_name.items():
        if not isinstance(rate, Real):
            raise ValueError(f"learning_rate_mapping: the rate of {pattern!r} must be a number, got {rate!r}")
    rates = [arguments.learning_rate, *by_name.values()]
    wrong = {
        "num_train_epochs": not (arguments.max_steps > 0 or 0 < arguments.num_train_epochs < math.inf),
        "max_steps": arguments.max_steps != -1 and arguments.max_steps < 1,  # -1 is the stock default
        "per_device_train_batch_size": arguments.per_device_train_batch_size < 1,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps < 1,
        "learning_rate": not (all(0 <= rate < math.inf for rate in rates) and any(rates)),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(f"{name} must be more than 0, got {getattr(arguments, name)}: nothing would be trained")


def check_names(arguments: SentenceTransformerTrainingArguments, rows: Any) -> None:
    """Check that prompts and routes are for columns or datasets that there are; stock ignores those of others.

    Args:
        arguments: Have `prompts` and `router_mapping`, by column, by dataset, or by column in each dataset.
        rows: A dataset, or datasets by name.

    Example:
        >>> from datasets import Dataset
        >>> rows = Dataset.from_dict({"anchor": ["Mưa?"], "positive": ["Mưa."]})
        >>> check_names(common_arguments("outputs", prompts={"query": "hỏi: "}), rows)
        Traceback (most recent call last):
        ValueError: prompts: there is no 'query'; the columns are ['anchor', 'positive']
    """
    parts = rows if isinstance(rows, Mapping) else {"": rows}
    columns = [part.column_names for part in parts.values()]
    if None in columns:  # a stream without types
        return
    columns = list(dict.fromkeys(name for of_part in columns for name in of_part))
    datasets = [name for name in parts if name]
    for argument in ("prompts", "router_mapping"):
        given = getattr(arguments, argument)
        given = given if isinstance(given, Mapping) else {}
        inner = [name for part in given.values() if isinstance(part, Mapping) for name in part]
        for name in (*given, *inner):
            if name not in columns + datasets:
                also = f", the datasets {datasets}" if datasets else ""
                raise ValueError(f"{argument}: there is no {name!r}; the columns are {columns}{also}")


class StepsTaken(TrainerCallback):
    """Raises `ValueError` after two epochs without a step, where the stock trainer would go on forever.

    It does so with a stream whose batches are fewer than ``gradient_accumulation_steps``: it cannot know the last one.
    Of an epoch that is resumed, there may be as few.
    """

    def __init__(self) -> None:
        self.epochs = 0  # since the last step

    def on_step_end(self, *_: Any, **kwargs: Any) -> None:
        """Count from here."""
        self.epochs = 0

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Check the count."""
        self.epochs += 1
        if self.epochs == 2 and state.global_step < state.max_steps:
            raise ValueError(
                f"nothing is trained: the stream has fewer batches than gradient_accumulation_steps, "
                f"{args.gradient_accumulation_steps}; lower that number, or give the rows as a Dataset"
            )


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
