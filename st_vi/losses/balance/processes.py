"""What the processes of a training have to agree on."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def num_processes() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_of_processes(values: Tensor) -> Tensor:
    """The mean over all processes."""
    if (count := num_processes()) == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / count


def of_first_process(values: Tensor) -> Tensor:
    """The values of the first process."""
    if num_processes() > 1:
        dist.broadcast(values, src=0)
    return values
