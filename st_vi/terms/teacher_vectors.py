"""Distillation of a teacher's vectors and of their similarities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from st_vi.terms.pairs import PairBatch, products, unit
from st_vi.terms.term import Term


@dataclass(frozen=True, kw_only=True)
class TeacherCosine(Term):
    """Alignment of the student's vectors with those of the teacher.

    With f(x) and t(x) the student's and the teacher's vector of input x:

        L_i = mean over the inputs x of row i of (1 − cos(f(x), t(x)))

    The loss lies in [0, 2]. Inputs without a teacher vector (not finite) are left out; a row without any gives 0. The
    student may read another text than the teacher did: the same one without diacritics, for example.

    Source: sentence distillation (Reimers & Gurevych 2020, arXiv 2004.09813), with the cosine instead of the squared
    difference, as only directions matter.

    Args:
        weight: Weight of the term in a task.

    Raises:
        ValueError: The batch has no teacher vectors, or they differ in size from the student's.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, TeacherCosine
        >>> student, teacher = torch.eye(2), torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
        >>> TeacherCosine()(PairBatch(student, student, teacher_vectors=teacher))
        tensor([0., 1.])
    """

    needs_teacher_vectors: ClassVar[bool] = True
    needs_positive: ClassVar[bool] = False

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        teacher = pairs.known_teacher_vectors
        if teacher.shape[-1] != pairs.anchors.shape[-1]:
            raise ValueError(
                f"TeacherCosine needs vectors of one size, but the student's have {pairs.anchors.shape[-1]} numbers, "
                f"the teacher's {teacher.shape[-1]}: TeacherSimilarities takes any"
            )
        ours = torch.stack([pairs.own(column) for column in pairs.inputs[: len(teacher)]])
        theirs = torch.stack([pairs.own(column) for column in teacher])
        known = theirs.isfinite().all(dim=-1)
        theirs = theirs.nan_to_num(0.0, 0.0, 0.0)
        return _mean(1 - (unit(ours) * unit(theirs)).sum(dim=-1), known)


@dataclass(frozen=True, kw_only=True)
class TeacherSimilarities(Term):
    """Regression of the cosines between inputs to those of the teacher, whose vectors may have any size.

    With f and t as in `TeacherCosine`, x the inputs of row i, and y all other inputs of the batch:

        L_i = mean over x and y of (cos(f(x), f(y)) − cos(t(x), t(y)))²

    The loss lies in [0, 4]. Inputs without a teacher vector (not finite) are left out; a row without any, or a single
    input, gives 0.

    Source: similarity-preserving distillation (Tung & Mori 2019, arXiv 1907.09682) with cosines, as in the relational
    term of RKD (arXiv 1904.05068).

    Args:
        weight: Weight of the term in a task. The squares are small: 30 here balances 10 for `TeacherCosine`.

    Raises:
        ValueError: The batch has no teacher vectors.

    Example:
        >>> import torch
        >>> from st_vi.terms import PairBatch, TeacherSimilarities
        >>> student, teacher = torch.eye(2), torch.tensor([[[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]]])
        >>> TeacherSimilarities()(PairBatch(student, student, teacher_vectors=teacher))  # (0 − 0.6)²
        tensor([0.3600, 0.3600])
    """

    needs_teacher_vectors: ClassVar[bool] = True
    needs_positive: ClassVar[bool] = False

    def __call__(self, pairs: PairBatch) -> Tensor:
        """Loss of each own row, (R,)."""
        count, width = pairs.known_teacher_vectors.shape[:2]
        student, (teacher, known) = pairs.once(_student, count), pairs.once(_teacher)
        row = pairs.own(torch.arange(width, device=teacher.device))
        own = (row + width * torch.arange(count, device=teacher.device)[:, None]).flatten()
        similarity = products(student[own], student)
        error = (similarity - products(teacher[own], teacher).to(similarity.dtype)) ** 2
        valid = known[own, None] & known
        valid[torch.arange(len(own), device=own.device), own] = False  # an input with itself
        shape = (count, len(row), -1)
        return _mean(error.view(shape).transpose(0, 1).flatten(1).T, valid.view(shape).transpose(0, 1).flatten(1).T)


def _student(pairs: PairBatch, count: int) -> Tensor:
    """The first `count` columns of inputs, of length 1, (count · W, D)."""
    return torch.cat([unit(column) for column in pairs.inputs[:count]])


def _teacher(pairs: PairBatch) -> tuple[Tensor, Tensor]:
    """The teacher's vectors, of length 1, (v · W, T), and which are known."""
    vectors = pairs.known_teacher_vectors.flatten(0, 1)
    return unit(vectors.nan_to_num(0.0, 0.0, 0.0)), vectors.isfinite().all(dim=-1)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean of the known values over the first axis, 0 where none is known."""
    return torch.where(known, values, 0.0).sum(dim=0) / known.sum(dim=0).clamp(min=1)
