"""Checks of training arguments."""

from __future__ import annotations

import math

from sentence_transformers import SentenceTransformerTrainingArguments


def check_arguments(arguments: SentenceTransformerTrainingArguments) -> None:
    """Check, before anything is written, that training with these arguments has an effect.

    Raises:
        ValueError: The number of epochs, the batch size or all learning rates are 0; names the argument.

    Example:
        >>> from st_vi.recipes import viclsr_training_arguments
        >>> from st_vi.recipes.training.arguments import check_arguments
        >>> check_arguments(viclsr_training_arguments("outputs", num_train_epochs=0))
        Traceback (most recent call last):
        ValueError: num_train_epochs must be more than 0, got 0: nothing would be trained
    """
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
