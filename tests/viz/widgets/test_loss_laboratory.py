"""Every control changes what is drawn, and what is drawn is what the loss does."""

from __future__ import annotations

import pytest

pytest.importorskip("ipywidgets")
pytest.importorskip("anywidget")

from st_vi.tasks import VIPOLYQWEN_TASKS
from st_vi.viz.free_points import ALL_TERMS, FreePoints, adjusted
from st_vi.viz.widgets.loss_laboratory import LossLaboratory

ANCHORS, POSITIVES, PATH, MSE, SHARE, MASS, FALSE_MASS = (0, 2), (0, 3), (1, 0), (2, 1), (3, 0), (4, 0), (4, 1)
NAMES = ["InfoNCE", "ScoreMSE", "PairwiseRank", "CosineAlignment", "HardestNegativeMargin"]


@pytest.fixture
def laboratory():
    return LossLaboratory(rows=12, seed=1)


def drawn(laboratory, place):
    """The trace with this number in the panel with this number."""
    panel, trace = place
    return laboratory.figures[panel].data[trace]


def shares(laboratory):
    return dict(zip(NAMES, drawn(laboratory, SHARE).y, strict=True))


def test_it_trains_as_free_points_do(laboratory):
    twin = FreePoints(12, 3, 0.5, seed=1)
    twin.draw(12)
    terms = adjusted(ALL_TERMS, laboratory.temperature.value, {"InfoNCE": 1, "ScoreMSE": 3, "PairwiseRank": 1})
    seen = [twin.look(terms)]
    for value in (1, 2, 3):
        laboratory.play.value = value
        twin.step(terms)
        seen.append(twin.look(terms))
    assert list(drawn(laboratory, POSITIVES).y) == pytest.approx(twin.points[1, :, 1].tolist(), abs=1e-4)
    assert list(drawn(laboratory, PATH).y) == pytest.approx([moment.alignment for moment in seen])
    assert list(drawn(laboratory, MSE).y) == pytest.approx([m.components["ScoreMSE"] for m in seen])
    assert list(drawn(laboratory, FALSE_MASS).y) == pytest.approx(seen[-1].mass[1].tolist())
    assert f"{seen[-1].tolerance:.2f}" in laboratory.state.value and "<b>3</b>" in laboratory.state.value


def test_controls_act_at_once(laboratory):
    laboratory.step.click()
    points = list(drawn(laboratory, ANCHORS).x)
    before = drawn(laboratory, MASS).y
    laboratory.temperature.value = 1.0
    assert drawn(laboratory, MASS).y[0] < before[0]
    before = shares(laboratory)
    laboratory.weights["ScoreMSE"].value = 5.0
    assert shares(laboratory)["ScoreMSE"] > before["ScoreMSE"]
    laboratory.switches["InfoNCE"].value = False
    assert shares(laboratory)["InfoNCE"] == 0
    laboratory.batch_size.value = 5
    assert len(drawn(laboratory, MASS).y) == 4 and len(laboratory.points.batch) == 5
    assert list(drawn(laboratory, ANCHORS).x) == points and laboratory.points.steps == 1


def test_twins_are_spared_when_the_loss_is_told(laboratory):
    assert sum(drawn(laboratory, FALSE_MASS).y) > 0
    laboratory.spare.value = True
    assert sum(drawn(laboratory, FALSE_MASS).y) == 0
    laboratory.false_negatives.value = 0.0
    assert "no twins" in laboratory.state.value and len(set(drawn(laboratory, ANCHORS).marker.color)) == 1


def test_terms_of_a_task(laboratory):
    for task in VIPOLYQWEN_TASKS:
        laboratory.task.value = task.name
        weights = {type(term).__name__: term.weight for term in laboratory._terms() if term.weight}
        assert weights == {type(term).__name__: term.weight for term in task.terms}
    laboratory.task.value = "vqa_multi"
    assert {type(term).__name__: term for term in laboratory._terms()}["HardestNegativeMargin"].margin == 0.3
    assert shares(laboratory)["HardestNegativeMargin"] > 0 and shares(laboratory)["ScoreMSE"] == 0


@pytest.mark.parametrize("how", ["reset", "stop", "false negatives"])
def test_ways_to_start_again(laboratory, how):
    start = list(drawn(laboratory, ANCHORS).x)
    for value in (1, 2):
        laboratory.play.value = value
    if how == "reset":
        laboratory.play.playing = True
        laboratory.reset.click()
        assert not laboratory.play.playing and laboratory.play.value == 0
    elif how == "stop":
        laboratory.play.value = 0
    else:
        laboratory.false_negatives.value = 1.0
    assert laboratory.points.steps == 0 and len(drawn(laboratory, PATH).x) == 1
    assert (list(drawn(laboratory, ANCHORS).x) == start) == (how != "false negatives")


def test_a_notice_when_nothing_pulls(laboratory):
    for switch in laboratory.switches.values():
        switch.value = False
    assert "switch one on" in laboratory.notice.value
    laboratory.step.click()
    assert "switch one on" in laboratory.notice.value and laboratory.points.steps == 1
    laboratory.switches["ScoreMSE"].value = True
    assert not laboratory.notice.value


def test_its_twin_without_a_kernel(laboratory):
    film = laboratory._repr_mimebundle_()["application/vnd.plotly.v1+json"]
    assert len(film["frames"]) == len(film["layout"]["sliders"][0]["steps"]) > 10
    assert laboratory.points.steps == 0  # the film is made of other points


def test_there_is_no_picture_of_four_dimensions():
    with pytest.raises(ValueError, match="dimension must be a whole number from 2 to 3, got 4"):
        LossLaboratory(rows=6, dimension=4)
    with pytest.raises(ValueError, match="rows must be a whole number of at least 2, got 1"):
        LossLaboratory(rows=1)


def test_on_a_circle():
    laboratory = LossLaboratory(rows=6, dimension=2)
    laboratory.step.click()
    assert drawn(laboratory, ANCHORS).type == "scatter" and not laboratory.notice.value
