"""A task is a name, a prefix and a list of loss terms: viPolyQwen's table of losses as data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairBatch, PairwiseRank, ScoreMSE

Term = Callable[[PairBatch], Tensor]


@dataclass(frozen=True)
class Task:
    """What the rows of one kind are trained with.

    Attributes:
        name: Stands in the `task` column of the rows, and before the names of the loss components.
        prefix: Token put in front of the text, such as "<ocr>".
        terms: Each gives a loss per row and has a `weight`.

    Raises:
        ValueError: No terms.

    Example:
        >>> from st_vi.tasks import Task
        >>> from st_vi.terms import CosineAlignment, InfoNCE
        >>> task = Task("title", "<title>", (InfoNCE(temperature=0.07), CosineAlignment(weight=0.5)))
        >>> list(task.components)
        ['title_info_nce', 'title_cosine_alignment']
    """

    name: str
    prefix: str
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError(f"task {self.name!r} has no terms")

    @property
    def components(self) -> dict[str, Term]:
        """Terms by the name under which their loss is logged; a second term of a kind gets a number."""
        components: dict[str, Term] = {}
        for term in self.terms:
            kind = "".join(f"_{c.lower()}" if c.isupper() and not p.isupper() else c.lower() for p, c in _pairs(term))
            key = name = f"{self.name}{kind}"
            number = 1
            while key in components:
                number += 1
                key = f"{name}_{number}"
            components[key] = term
        return components

    @property
    def needs_score(self) -> bool:
        """Whether a row of this task is of no use without a score."""
        return any(getattr(term, "needs_score", False) for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether a row of this task is of no use without a teacher's scores of its candidates."""
        return any(getattr(term, "needs_teacher", False) for term in self.terms)

    @property
    def needs_teacher_vectors(self) -> bool:
        """Whether a row of this task is of no use without a teacher's vector of one of its texts."""
        return any(getattr(term, "needs_teacher_vectors", False) for term in self.terms)

    @property
    def needs_positive(self) -> bool:
        """Whether a row of this task needs a positive: not where its terms look at each input and a teacher alone."""
        return any(getattr(term, "needs_positive", True) for term in self.terms)


def _pairs(term: Term) -> zip[tuple[str, str]]:
    name = type(term).__name__
    return zip(" " + name, name, strict=False)


T = 0.07

VIPOLYQWEN_TASKS: tuple[Task, ...] = (
    #    L = symNCE + 3·mean(ŝ − s)² + mean over {s_i > s_j} of max(0, 0.05 − (ŝ_i − ŝ_j))
    Task(
        "text_pair",
        "<text_pair>",
        (InfoNCE(T, symmetric=True), ScoreMSE(weight=3.0), PairwiseRank(margin=0.05, weight=1.0)),
    ),
    #    L = symNCE + (1 − cos)
    Task("instr", "<instr>", (InfoNCE(T, symmetric=True), CosineAlignment())),
    #    L = symNCE + max(0, max_{j≠i} cos_ij/T − cos_ii/T + 0.2)
    Task("ocr", "<ocr>", (InfoNCE(T, symmetric=True), HardestNegativeMargin(margin=0.2, temperature=T))),
    Task("vqa_single", "<vqa_single>", (InfoNCE(T, symmetric=True), HardestNegativeMargin(margin=0.2, temperature=T))),
    #    L = symNCE + 1.5·max(0, max_{j≠i} cos_ij/T − cos_ii/T + 0.3)
    Task(
        "vqa_multi",
        "<vqa_multi>",
        (InfoNCE(T, symmetric=True), HardestNegativeMargin(margin=0.3, temperature=T, weight=1.5)),
    ),
)
"""The five tasks of viPolyQwen, with its weights, margins and temperature T = 0.07; ŝ = (cos + 1)/2."""


def keep_terms(tasks: Sequence[Task], *kinds: type) -> tuple[Task, ...]:
    """The same tasks with only the terms of these kinds, for comparisons.

    Raises:
        ValueError: A task is left without a term.

    Example:
        >>> from st_vi import VIPOLYQWEN_TASKS
        >>> from st_vi.tasks import keep_terms
        >>> from st_vi.terms import InfoNCE
        >>> [list(task.components) for task in keep_terms(VIPOLYQWEN_TASKS, InfoNCE)][:2]
        [['text_pair_info_nce'], ['instr_info_nce']]
    """
    return tuple(replace(task, terms=tuple(term for term in task.terms if isinstance(term, kinds))) for task in tasks)
