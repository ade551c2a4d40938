"""Arguments of a training of one epoch, with a checkpoint after every step."""

from __future__ import annotations

SETTINGS = {
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 1,
    "logging_steps": 1,
    "save_strategy": "steps",
    "save_steps": 1,
    "use_cpu": True,
}
