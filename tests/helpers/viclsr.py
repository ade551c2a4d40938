"""A small ViCLSR, and arguments of a short training."""

from __future__ import annotations

import torch

from st_vi import build_viclsr

SETTINGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-2,
    "save_strategy": "steps",
    "save_steps": 3,
    "disable_tqdm": True,
    "use_cpu": True,
}


def built(tiny_base):
    torch.manual_seed(0)
    return build_viclsr(tiny_base)
