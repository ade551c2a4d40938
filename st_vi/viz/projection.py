"""Projection of embeddings to two dimensions by PCA or UMAP."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from st_vi.checks import check_choice
from st_vi.evaluation.geometry.vectors import as_tensor
from st_vi.files.lines import on_disk

logger = logging.getLogger(__name__)

Method = Literal["pca", "umap"]


@dataclass(frozen=True)
class Projection:
    """Embeddings projected to two dimensions.

    Attributes:
        points: (N, 2).
        method: The method used, which may differ from the one requested.
        notice: The reason, if it differs.
        axes: Axis titles; empty if an axis has no meaning.
    """

    points: np.ndarray
    method: Method = "pca"
    notice: str = ""
    axes: tuple[str, str] = ("", "")


def project(
    embeddings: Tensor | np.ndarray,
    method: Method = "pca",
    cache: str | Path | None = None,
    seed: int = 0,
    n_neighbors: int = 15,
    min_dist: float = 0.1,
) -> Projection:
    """Project embeddings to the plane with PCA (linear, fast) or UMAP (McInnes et al. 2018, arXiv 1802.03426).

    Distances on a UMAP map have no meaning; neighbourhoods do, mostly. UMAP takes seconds, so cache its result. If UMAP
    is not available, PCA is used instead, and `notice` gives the reason.

    Args:
        embeddings: (N, D).
        method: "pca", or "umap" with the cosine metric.
        cache: Folder in which UMAP coordinates are cached; None for no cache.
        seed: UMAP seed.
        n_neighbors: UMAP neighbourhood size.
        min_dist: UMAP minimum distance between points.

    Raises:
        ValueError: Embeddings are not (N, D), are empty, or have NaN or infinite values; or the method is unknown.

    Example:
        >>> import torch
        >>> from st_vi.viz import project
        >>> project(torch.tensor([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])).axes
        ('PC 1 (90 %)', 'PC 2 (10 %)')
    """
    check_choice("method", method, Method)
    rows = as_rows(embeddings)
    if method == "pca":
        return _pca(rows)
    # Identical points would become a meaningless cloud.
    distinct = 1 if _are_equal(rows) else len(np.unique(rows, axis=0))
    if distinct <= n_neighbors:
        return _pca(rows, f"UMAP needs more than {n_neighbors} different points, got {distinct}: this is PCA.")
    parameters = {"n_neighbors": n_neighbors, "min_dist": min_dist, "metric": "cosine", "random_state": seed}
    key = hashlib.sha256(repr((rows.shape, sorted(parameters.items()))).encode() + rows.tobytes()).hexdigest()
    try:
        path = None if cache is None else on_disk(cache) / f"umap-{key[:32]}.npz"
        return Projection(_kept(path, len(rows), lambda: _umap(rows, parameters)), "umap")
    except ImportError:
        return _pca(rows, 'umap-learn is not installed: this is PCA. For UMAP: pip install "st-vi[notebooks]"')


def as_rows(embeddings: Tensor | np.ndarray, name: str = "embeddings") -> np.ndarray:
    """The embeddings as a float32 array (N, D), N ≥ 1.

    Raises:
        ValueError: Another shape, no rows, or NaN or infinite values.
    """
    rows = as_tensor(embeddings).float().cpu().numpy()
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} must have the shape (N, D) with at least one row, got {rows.shape}")
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(wrong):
        raise ValueError(f"{name}: {len(wrong)} rows hold NaN or infinite values, the first of them is row {wrong[0]}")
    return np.ascontiguousarray(rows)


def _are_equal(rows: np.ndarray) -> bool:
    """Whether all rows are the same up to the rounding of float32, of which a map would make a cloud."""
    return bool((abs(rows - rows[0]).max(axis=0) <= 4 * np.finfo(rows.dtype).eps * abs(rows).max()).all())


def as_points(points: Any, name: str = "points") -> np.ndarray:
    """Points of a map as an array (N, 2).

    Raises:
        ValueError: Another shape, or NaN or infinite values.
    """
    found = as_tensor(points).cpu()
    if found.ndim != 2 or found.shape[1] != 2:
        raise ValueError(
            f"{name} must have the shape (N, 2), got {tuple(found.shape)}: `project` makes a map of vectors"
        )
    if not found.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinite values, which have no place on a map")
    return (found.float() if found.dtype == torch.bfloat16 else found).numpy()


def _pca(rows: np.ndarray, notice: str = "") -> Projection:
    points = np.zeros((len(rows), 2), dtype=np.float32)
    if _are_equal(rows):
        same = "All points are equal." if len(rows) > 1 else "There is one point."
        return Projection(points, "pca", f"{notice} {same}".strip())
    pca = PCA(min(2, *rows.shape), random_state=0)
    found = pca.fit_transform(rows)
    points[:, : found.shape[1]] = found
    first, second = (*pca.explained_variance_ratio_, 0.0)[:2]
    axes = (f"PC 1 ({100 * first:.0f} %)", f"PC 2 ({100 * second:.0f} %)")
    return Projection(points, "pca", notice, axes)


def _umap(rows: np.ndarray, parameters: Mapping[str, Any]) -> np.ndarray:
    from umap import UMAP  # takes seconds, so only on demand

    bar, threads = {"disable": False, "desc": f"UMAP of {len(rows):,} points"}, torch.get_num_threads()
    try:
        return UMAP(**parameters, n_jobs=1, tqdm_kwds=bar).fit_transform(rows)
    finally:
        torch.set_num_threads(threads)  # numba has set its own for OpenMP, and so for torch


def _kept(path: Path | None, count: int, make: Callable[[], np.ndarray]) -> np.ndarray:
    """The points in the file, or, if it is missing or damaged, new points, which are then written to it."""
    if path is None:
        return make()
    try:
        with np.load(path) as file:
            points = file["points"]
        if points.shape == (count, 2):
            return points
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass
    points = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, points=points)
        os.replace(file.name, path)  # atomic: readers never see a partial file
    except OSError as error:
        logger.warning(f"the coordinates of UMAP could not be kept: {error}")
    return points
