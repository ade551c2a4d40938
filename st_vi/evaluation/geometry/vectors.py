"""Sets of vectors: their check, and rows in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from st_vi.checks import check_whole
from st_vi.inputs.kinds import shown

CHUNK = 2048
"""Rows at once: a block of 2048 × 2048 similarities takes 16 MB in float32."""


def as_tensor(values: Any) -> Tensor:
    """Numbers as a tensor without a gradient: a tensor, an array, a table or column of pandas, or a list of these."""
    try:
        if str(getattr(values, "dtype", "")) == "object":  # of rows, as a column of pandas has them
            values = values.tolist()
        if isinstance(values, (list, tuple)) and any(isinstance(row, (Tensor, np.ndarray)) for row in values):
            return torch.stack([torch.as_tensor(row).detach() for row in values])
        if hasattr(values, "to_numpy"):
            return torch.tensor(values.to_numpy())  # a copy: that of pandas is read-only
        return torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"expected numbers, such as an array or a tensor, got {shown(values)}: {error}") from error


def checked(x: Tensor) -> Tensor:
    """Vectors (N, D), as for `as_tensor`, in float32 or better and without a gradient; they must be finite."""
    x = as_tensor(x)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise ValueError(f"there must be two vectors or more, (N, D), got the shape {tuple(x.shape)}")
    if not all(rows.isfinite().all() for _, rows in blocks(x)):
        raise ValueError("the vectors hold NaN or infinite values")
    return x.to(torch.promote_types(x.dtype, torch.float32))


def blocks(x: Tensor, chunk: int = CHUNK) -> Iterator[tuple[int, Tensor]]:
    """Rows in chunks, each with the number of its first row."""
    check_whole("chunk", chunk)
    return ((first, x[first : first + chunk]) for first in range(0, len(x), chunk))


def unit_chunks(x: Tensor, chunk: int = CHUNK) -> Iterator[Tensor]:
    """Rows of unit length in float64, in chunks."""
    return (unit_vectors(rows.double()) for _, rows in blocks(x, chunk))


def unit_vectors(x: Tensor) -> Tensor:
    """Vectors (…, D) with the length 1, whatever length they had; zeros stay zeros.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry.vectors import unit_vectors
        >>> unit_vectors(torch.tensor([[3e30, 4e30], [0.0, -1e-30]]))  # the squares leave the range of float32
        tensor([[ 0.6000,  0.8000],
                [ 0.0000, -1.0000]])
    """
    largest = x.abs().amax(dim=-1, keepdim=True)
    return F.normalize(x / largest.clamp_min(torch.finfo(x.dtype).tiny), dim=-1)
