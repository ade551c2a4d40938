"""Tasks: each has a name, a prefix and a list of loss terms. The five tasks of viPolyQwen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from st_vi.terms import CosineAlignment, HardestNegativeMargin, InfoNCE, PairwiseRank, ScoreMSE, Term


@dataclass(frozen=True)
class Task:
    """A kind of training rows: the prefix of its texts and the terms of its loss.

    Attributes:
        name: The value in the `task` column of the rows, and the first part of the names of the loss components.
        prefix: Token put in front of the text, such as "<ocr>".
        terms: The loss of a row is their weighted sum.

    Raises:
        ValueError: No terms, or the name is blank.
        TypeError: A term that is no `st_vi.terms.Term`, or a name or prefix that is no text.

    Example:
        >>> from st_vi import Task
        >>> from st_vi.terms import CosineAlignment, InfoNCE
        >>> task = Task("title", "<title>", (InfoNCE(temperature=0.07), CosineAlignment(weight=0.5)))
        >>> list(task.components)
        ['title_info_nce', 'title_cosine_alignment']
    """

    name: str
    prefix: str
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and isinstance(self.prefix, str)):
            raise TypeError(f"name and prefix of a task are texts, got {self.name!r} and {self.prefix!r}")
        if not self.name.strip():
            raise ValueError("the name of a task must not be blank")
        if isinstance(self.terms, Term):
            raise TypeError(f"task {self.name!r}: terms must be a tuple; of one term, it ends with a comma: (term,)")
        if not self.terms:
            raise ValueError(f"task {self.name!r} has no terms")
        for term in self.terms:
            if not isinstance(term, Term):
                raise TypeError(f"task {self.name!r}: a term must inherit from st_vi.terms.Term, got {term!r}")

    @property
    def components(self) -> dict[str, Term]:
        """Terms by the name of their loss in the log; the second term of a class ends in _2, and so on."""
        components: dict[str, Term] = {}
        for term in self.terms:
            snake_case = re.sub(r"(?<=[^A-Z])(?=[A-Z])", "_", type(term).__name__).lower()
            key = name = f"{self.name}_{snake_case}"
            number = 1
            while key in components:
                number += 1
                key = f"{name}_{number}"
            components[key] = term
        return components

    @property
    def needs_score(self) -> bool:
        """Whether rows of this task need a score."""
        return any(term.needs_score for term in self.terms)

    @property
    def needs_teacher(self) -> bool:
        """Whether rows of this task need a teacher's scores of their candidates."""
        return any(term.needs_teacher for term in self.terms)

    @property
    def needs_teacher_vectors(self) -> bool:
        """Whether rows of this task need a teacher's vector of at least one text."""
        return any(term.needs_teacher_vectors for term in self.terms)

    @property
    def needs_class(self) -> bool:
        """Whether rows of this task need a class."""
        return any(term.needs_class for term in self.terms)

    @property
    def needs_positive(self) -> bool:
        """Whether rows of this task need a positive: not if all its terms compare each input with a teacher."""
        return any(term.needs_positive for term in self.terms)


def check_tasks(tasks: Sequence[Task]) -> None:
    """Check that tasks can be told apart, and their parts of the loss.

    Raises:
        TypeError: This is no list of tasks.
        ValueError: It is empty, or two tasks have the same name, or a component of the same name.

    Example:
        >>> from st_vi import Task
        >>> from st_vi.tasks import check_tasks
        >>> from st_vi.terms import InfoNCE, SoftInfoNCE
        >>> check_tasks([Task("ocr", "", (SoftInfoNCE(),)), Task("ocr_soft", "", (InfoNCE(),))])
        Traceback (most recent call last):
        ValueError: two tasks have a component 'ocr_soft_info_nce': give one of them another name
    """
    if not isinstance(tasks, Sequence) or not all(isinstance(task, Task) for task in tasks):
        raise TypeError(f"expected a list of st_vi.Task, got {tasks!r:.100}")
    names = [task.name for task in tasks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"there must be tasks, with different names, got {names}")
    components = [name for task in tasks for name in task.components]
    for name in components:
        if components.count(name) > 1:
            raise ValueError(f"two tasks have a component {name!r}: give one of them another name")


T = 0.07
_SYM_NCE = InfoNCE(temperature=T, symmetric=True)
_MARGIN = HardestNegativeMargin(margin=0.2, temperature=T)

VIPOLYQWEN_TASKS: tuple[Task, ...] = (
    #    L = symNCE + 3·mean(ŝ − s)² + mean over {s_i > s_j} of max(0, 0.05 − (ŝ_i − ŝ_j))
    Task("text_pair", "<text_pair>", (_SYM_NCE, ScoreMSE(weight=3.0), PairwiseRank(margin=0.05, weight=1.0))),
    #    L = symNCE + (1 − cos)
    Task("instr", "<instr>", (_SYM_NCE, CosineAlignment())),
    #    L = symNCE + max(0, max_{j≠i} cos_ij/T − cos_ii/T + 0.2)
    Task("ocr", "<ocr>", (_SYM_NCE, _MARGIN)),
    Task("vqa_single", "<vqa_single>", (_SYM_NCE, _MARGIN)),
    #    L = symNCE + 1.5·max(0, max_{j≠i} cos_ij/T − cos_ii/T + 0.3)
    Task("vqa_multi", "<vqa_multi>", (_SYM_NCE, HardestNegativeMargin(margin=0.3, temperature=T, weight=1.5))),
)
"""The five tasks of viPolyQwen, with its weights, margins and temperature T = 0.07; ŝ = (cos + 1)/2."""

VIDEO_TASK = Task("video", "<video>", (_SYM_NCE, _MARGIN))
"""A task for rows with videos, with the terms of those for images; this project's own.

The paper has no videos, so it is none of `VIPOLYQWEN_TASKS`: their order is the label of a row, and saved models have
their five prefixes. Give it to the loss beside them, ``tasks=(*VIPOLYQWEN_TASKS, VIDEO_TASK)``, and its prefix to the
model with `Qwen2VLTransformer.add_prefixes`.
"""

PREFIXES: tuple[str, ...] = tuple(task.prefix for task in VIPOLYQWEN_TASKS)
"""Their prefixes."""


def keep_terms(tasks: Sequence[Task], *kinds: type) -> tuple[Task, ...]:
    """The same tasks with only the terms of these classes, for comparisons.

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
