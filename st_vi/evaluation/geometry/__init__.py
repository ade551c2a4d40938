"""Geometry of embeddings: close to their partners, spread over the sphere, or squeezed into a corner of it.

All functions take vectors (N, D), tensors or arrays, and measure only: no gradient flows through them. They compute in
float32 or better and go through the rows in chunks, so that 100,000 × 1,024 need little more than one copy of the
input. Vectors are normalised where a definition needs unit vectors; a zero vector has the cosine 0 with all others.
NaN, infinite values and fewer than two vectors raise a ValueError.
"""

from st_vi.evaluation.geometry.gradients import gradient_shares, relative_penalty
from st_vi.evaluation.geometry.measures import (
    alignment,
    effective_rank,
    mean_cosine,
    modality_gap,
    singular_values,
    tolerance,
    uniformity,
)
from st_vi.evaluation.geometry.neighbours import nearest_neighbours, neighbourhood_overlap

__all__ = [
    "alignment",
    "effective_rank",
    "gradient_shares",
    "mean_cosine",
    "modality_gap",
    "nearest_neighbours",
    "neighbourhood_overlap",
    "relative_penalty",
    "singular_values",
    "tolerance",
    "uniformity",
]
