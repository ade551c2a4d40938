"""Tasks as lists of terms."""

import pytest

from st_vi import VIPOLYQWEN_TASKS
from st_vi.tasks import keep_terms
from st_vi.terms import InfoNCE, ScoreMSE


def test_keep_terms_keeps_the_terms_themselves():
    kept = keep_terms(VIPOLYQWEN_TASKS, InfoNCE)
    assert [task.name for task in kept] == [task.name for task in VIPOLYQWEN_TASKS]
    for task, before in zip(kept, VIPOLYQWEN_TASKS, strict=True):
        assert list(task.terms) == [term for term in before.terms if isinstance(term, InfoNCE)]


def test_a_task_left_without_a_term_is_an_error():
    with pytest.raises(ValueError, match="instr"):  # only text pairs have scores
        keep_terms(VIPOLYQWEN_TASKS, ScoreMSE)
