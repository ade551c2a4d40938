"""What the processes of a training have to agree on."""

from __future__ import annotations

import torch.distributed as dist
from sentence_transformers.util import get_world_size
from torch import Tensor


def mean_of_processes(values: Tensor) -> Tensor:
    """The mean over all processes."""
    if (count := get_world_size()) == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / count


def of_first_process(values: Tensor) -> Tensor:
    """The values of the first process."""
    if get_world_size() > 1:
        dist.broadcast(values, src=0)
    return values
