"""Tasks as lists of terms."""

import pytest

from st_vi import VIPOLYQWEN_TASKS, DLELoss, MixedTaskCollator, Task
from st_vi.tasks import check_tasks, keep_terms
from st_vi.terms import InfoNCE, ScoreMSE, SoftInfoNCE


def test_keep_terms_keeps_the_terms_themselves():
    kept = keep_terms(VIPOLYQWEN_TASKS, InfoNCE)
    assert [task.name for task in kept] == [task.name for task in VIPOLYQWEN_TASKS]
    for task, before in zip(kept, VIPOLYQWEN_TASKS, strict=True):
        assert list(task.terms) == [term for term in before.terms if isinstance(term, InfoNCE)]


def test_a_task_left_without_a_term_is_an_error():
    with pytest.raises(ValueError, match="instr"):  # only text pairs have scores
        keep_terms(VIPOLYQWEN_TASKS, ScoreMSE)


def test_no_part_of_the_loss_takes_the_name_of_another():
    """Of two with one name, the loss would keep the second only."""
    tasks = [Task("ocr", "", (SoftInfoNCE(),)), Task("ocr_soft", "", (InfoNCE(),))]
    for use in (check_tasks, lambda tasks: DLELoss(None, tasks), lambda tasks: MixedTaskCollator(print, tasks=tasks)):
        with pytest.raises(ValueError, match="two tasks have a component 'ocr_soft_info_nce'"):
            use(tasks)


@pytest.mark.parametrize("tasks", ["ocr", ["ocr"], VIPOLYQWEN_TASKS[0], None], ids=repr)
def test_what_is_no_list_of_tasks(tasks):
    with pytest.raises(TypeError, match=r"expected a list of st_vi\.Task, got"):
        DLELoss(None, tasks)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("ocr", "", InfoNCE()), TypeError, r"terms must be a tuple; of one term, it ends with a comma"),
        ((None, "", (InfoNCE(),)), TypeError, "name and prefix of a task are texts"),
        (("ocr", None, (InfoNCE(),)), TypeError, "name and prefix of a task are texts"),
        ((" ", "", (InfoNCE(),)), ValueError, "must not be blank"),
        (("ocr", "", ()), ValueError, "has no terms"),
    ],
)
def test_what_is_no_task(arguments, error, message):
    with pytest.raises(error, match=message):
        Task(*arguments)
