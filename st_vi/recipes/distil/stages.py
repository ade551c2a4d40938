"""The stages of the distillation, and the loss terms of each."""

from __future__ import annotations

from dataclasses import dataclass

from st_vi.tasks import Task
from st_vi.terms import InfoNCE, TeacherCosine, TeacherSimilarities, Term


@dataclass(frozen=True)
class Part:
    """Rows of one task in a stage, and how their texts are varied.

    Attributes:
        task: Name and loss terms. The tasks "retrieval" and "nli" use those rows, all others the texts.
        bare: Share of the queries without diacritics.
        varied: Share of all texts changed by one of the methods of `vary`.
        repeats: How often each row comes in an epoch.
    """

    task: Task
    bare: float = 0.0
    varied: float = 0.33
    repeats: int = 1


@dataclass(frozen=True)
class Stage:
    """Settings of a training stage.

    Attributes:
        name: Name of the stage.
        parts: What it trains on. With several parts, each batch comes from one of them.
        learning_rate: Peak learning rate, after a twentieth of the steps; then cosine decay.
        batch_size: Rows per batch.
        epochs: Epochs over the rows.
        max_length: Maximum tokens per text.
        keep: Weight of the student before the stage when it is averaged with the student after it, which reduces the
            noise that a stage adds.
    """

    name: str
    parts: tuple[Part, ...]
    learning_rate: float
    batch_size: int = 64
    epochs: float = 1
    max_length: int = 160
    keep: float = 0.0


def _terms(contrast: float, symmetric: float = 0.0, hard: float = 0.0, similarities: float = 60.0) -> tuple[Term, ...]:
    """InfoNCE from anchors and from both sides, and the two terms of the teacher; without those of weight 0."""
    terms = (
        InfoNCE(temperature=0.02, hard_negative_weight=hard, weight=contrast),
        InfoNCE(temperature=0.02, symmetric=True, weight=symmetric),
        TeacherCosine(weight=10.0),
        TeacherSimilarities(weight=similarities),
    )
    return tuple(term for term in terms if term.weight)


_SENTENCES = Part(Task("sentences", "", _terms(0.0, similarities=30.0)))
STAGES: tuple[Stage, ...] = (
    Stage("sentences", (_SENTENCES,), learning_rate=4e-4, batch_size=128),
    Stage(
        "retrieval",
        (Part(Task("retrieval", "", _terms(0.125, 0.125)), bare=0.45, varied=0.1),),
        learning_rate=1.5e-4,
        keep=0.3,
    ),
    Stage(
        "nli",
        (Part(Task("nli", "", _terms(0.3, hard=1.0)), varied=0.2),),
        learning_rate=5e-5,
        max_length=96,
        keep=0.2,
    ),
    Stage(
        "more",
        (
            _SENTENCES,
            Part(Task("retrieval", "", _terms(0.1, 0.1)), bare=0.42, varied=0.1, repeats=2),
            Part(Task("nli", "", _terms(0.3, hard=1.0)), varied=0.2, repeats=2),
        ),
        learning_rate=3e-4,
        batch_size=96,
        max_length=200,
        keep=0.25,
    ),
)
"""Sentences; queries and paragraphs; ViCLSR; then all three together. All include the teacher as a loss term."""
