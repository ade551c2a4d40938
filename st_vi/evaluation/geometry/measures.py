"""Measures of a set of embeddings; `st_vi.evaluation.geometry` explains the conventions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from st_vi.evaluation.base import check_labels
from st_vi.evaluation.geometry.vectors import CHUNK, blocks, checked, unit_chunks, unit_vectors


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """How far apart the two sides of a pair are: E ‖x_i − y_i‖^α of unit vectors. 0 is best, 2^α worst.

    Source: Wang and Isola 2020, arXiv 2005.10242, Section 4.

    Args:
        x: (N, D), such as anchors.
        y: (N, D), the positive of each.
        alpha: α > 0.

    Raises:
        ValueError: Unequal shapes, α is not positive, or see `st_vi.evaluation.geometry`.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import alignment
        >>> alignment(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))  # distances 0 and √2
        tensor(1.0000, dtype=torch.float64)
    """
    _check_positive(alpha=alpha)
    x, y = checked(x), checked(y)
    if x.shape != y.shape:
        raise ValueError(f"x and y must be pairs of one shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    pairs = zip(unit_chunks(x), unit_chunks(y), strict=True)
    return sum((a - b).norm(dim=1).pow(alpha).sum() for a, b in pairs) / len(x)


def uniformity(x: Tensor, t: float = 2.0, chunk: int = CHUNK) -> Tensor:
    """How evenly unit vectors spread over the sphere: log E_{i<j} e^{−t ‖x_i − x_j‖²}. Lower is better, 0 is collapse.

    Source: Wang and Isola 2020, arXiv 2005.10242, Section 4. All N(N−1)/2 pairs count, in blocks of chunk × chunk.

    Args:
        x: (N, D).
        t: > 0.
        chunk: Rows and columns of a block.

    Raises:
        ValueError: t is not positive, or see `st_vi.evaluation.geometry`.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import uniformity
        >>> uniformity(torch.eye(3))  # every pair at the squared distance 2
        tensor(-4.0000, dtype=torch.float64)
    """
    _check_positive(t=t)
    x = unit_vectors(checked(x))
    log_sum = torch.tensor(-math.inf, dtype=torch.float64, device=x.device)
    for first, rows in blocks(x, chunk):
        for second, columns in blocks(x[first:], chunk):
            logits = (rows @ columns.T).clamp_(-1, 1).sub_(1).mul_(2 * t)
            if second == 0:  # the diagonal block: each pair once
                above = torch.ones_like(logits, dtype=torch.bool).triu_(1)
                logits.masked_fill_(~above, -math.inf)
            log_sum = torch.logaddexp(log_sum, logits.flatten().logsumexp(0).double())
    return log_sum - math.log(len(x) * (len(x) - 1) / 2)


def tolerance(x: Tensor, labels: Sequence[Any] | np.ndarray | Tensor, chunk: int = CHUNK) -> Tensor:
    """How near vectors of one class stay: the mean cosine of all pairs i ≠ j with the same label, in [−1, 1].

    Source: Wang and Liu 2021, arXiv 2012.09740, Section 4.4; a loss that pushes every other row away lowers it. In
    closed form, with S_c the sum of the n_c unit vectors of class c:  Σ_c (‖S_c‖² − n_c) / Σ_c n_c (n_c − 1).

    Args:
        x: (N, D).
        labels: N classes, of any kind that can be a key of a dict: texts, numbers, tuples.
        chunk: Rows at once.

    Raises:
        ValueError: Unequal numbers of labels and vectors, a missing label, no two of one class, or see
            `st_vi.evaluation.geometry`.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import tolerance
        >>> tolerance(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), ["mưa", "mưa", "nắng"])
        tensor(1., dtype=torch.float64)
    """
    x, labels = checked(x), labels.tolist() if isinstance(labels, (np.ndarray, Tensor)) else list(labels)
    if len(labels) != len(x):
        raise ValueError(f"there must be one label for each vector, got {len(labels)} labels for {len(x)} vectors")
    check_labels(labels)  # None and NaN are no class
    # Not `np.unique`, to which tuples are rows, and 1 and "1" are equal. Values of numpy and torch become Python's.
    names = [label.item() if isinstance(label, (np.generic, Tensor)) else label for label in labels]
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    of_class = torch.tensor([number[name] for name in names], device=x.device)
    counts = torch.bincount(of_class).double()
    num_pairs = (counts * (counts - 1)).sum()
    if num_pairs == 0:
        raise ValueError("tolerance needs two vectors of the same class, and all labels differ")
    sums = x.new_zeros(len(number), x.shape[1], dtype=torch.float64)
    squares: Tensor | float = 0.0
    for rows, classes in zip(unit_chunks(x, chunk), of_class.split(chunk), strict=True):
        sums.index_add_(0, classes, rows)
        squares += rows.square().sum()
    return (sums.square().sum() - squares) / num_pairs


def mean_cosine(x: Tensor) -> Tensor:
    """The mean cosine of all pairs i ≠ j, in [−1/(N−1), 1]: far above 0, the vectors share a cone (anisotropy).

    Source: Ethayarajh 2019, arXiv 1909.00512, Section 3.4. In closed form: (‖Σ x_i‖² − N) / (N (N − 1)).

    Args:
        x: (N, D).

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import mean_cosine
        >>> mean_cosine(torch.tensor([[1.0, 0.0], [-3.0, 0.0]]))
        tensor(-1., dtype=torch.float64)
    """
    return tolerance(x, np.zeros(len(x), dtype=int))


def singular_values(x: Tensor, center: bool = True) -> Tensor:
    """The spectrum of the vectors as they are, in float64: min(N, D) singular values, the largest first.

    With more rows than columns they are the roots of the eigenvalues of XᵀX, which is summed up in chunks; values
    below about 1e-8 of the largest are then rounding noise.

    Args:
        x: (N, D).
        center: Subtract the mean vector first, as PCA does.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import singular_values
        >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, 4.0]]), center=False)
        tensor([4., 3.], dtype=torch.float64)
    """
    x = checked(x)
    mean = sum(rows.double().sum(dim=0) for _, rows in blocks(x)) / len(x) if center else 0.0
    if len(x) <= x.shape[1]:
        return torch.linalg.svdvals(x.double() - mean)
    gram = x.new_zeros(x.shape[1], x.shape[1], dtype=torch.float64)
    for _, rows in blocks(x):
        centred = rows.double() - mean
        gram.addmm_(centred.T, centred)
    return torch.linalg.eigvalsh(gram).flip(0).clamp(min=0).sqrt()


def effective_rank(x: Tensor, center: bool = True) -> Tensor:
    """How many dimensions the vectors really use, in [1, min(N, D)]: exp of the entropy of σ/Σσ.

    Source: Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality". Vectors that are all
    the same use none once they are centred: 0.

    Args:
        x: (N, D), taken as they are.
        center: Subtract the mean vector first; without, a mean far from zero looks like one strong dimension.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import effective_rank
        >>> effective_rank(torch.eye(5), center=False)
        tensor(5.0000, dtype=torch.float64)
    """
    values = singular_values(x, center)
    length = sum(rows.double().square().sum() for _, rows in blocks(checked(x))).sqrt()  # type: ignore[union-attr]
    if values.sum() <= torch.finfo(torch.float64).eps * len(x) * length:  # centring leaves this much of nothing
        return torch.zeros_like(values[0])
    return torch.special.entr(values / values.sum()).sum().exp()


def modality_gap(x: Tensor, y: Tensor) -> Tensor:
    """Distance of the centres of two groups of unit vectors, such as texts and images: ‖E x − E y‖, in [0, 2].

    Source: Liang et al. 2022, arXiv 2203.02053, Section 2.

    Args:
        x: (N, D).
        y: (M, D).

    Raises:
        ValueError: Unequal D, or see `st_vi.evaluation.geometry`.

    Example:
        >>> import torch
        >>> from st_vi.evaluation.geometry import modality_gap
        >>> modality_gap(torch.eye(2), -torch.eye(2))
        tensor(1.4142, dtype=torch.float64)
    """
    x, y = checked(x), checked(y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x and y must have one dimension, got {x.shape[1]} and {y.shape[1]}")
    centres: list[Any] = [sum(rows.sum(dim=0) for rows in unit_chunks(group)) / len(group) for group in (x, y)]
    return (centres[0] - centres[1]).norm()


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")
