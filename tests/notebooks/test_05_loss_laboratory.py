"""The laboratory trains and answers to its controls, and the log of the small training is what is drawn."""

from __future__ import annotations

import pytest

from tests.notebooks.pictures import check_pictures

CHECKS = """
logged = [entry for entry in log if "loss" in entry]
assert list(components.data[0].y) == [entry["dle/text_pair_info_nce"] for entry in logged]
assert len(path) == 1 + len(logged) // 4 and list(plane.data[0].y) == [alignment for alignment, _ in path]
assert abs(sum(float(share) for share, _ in shares.values()) - 1) < 1e-5

# What it says above its figures.
hard, easy = dict.fromkeys(kind for kind, _ in runs)
assert ends[hard, 0.0] < 0.7 * ln(BATCH) < 0.95 * ln(BATCH) < ends[hard, 20.0] and ends[easy, 20.0] < 0.5
assert all(last < 0.7 * first for first, last in fallen.values()) and set(fallen) == {"info_nce", "score_mse"}
texts = model.encode([*same["anchor"], *same["positive"]], convert_to_tensor=True)
partners = (texts[: len(same)] * texts[len(same) :]).sum(dim=1).mean()
assert abs(float(partners) - (1 - path[-1][0] / 2)) < 1e-3
assert gaps[-1] > 2 * gaps[0] > 0 and path[-1][1] < path[0][1] - 1
assert float(shares[strongest][0]) == max(float(share) for share, _ in shares.values()) > 2 / len(shares)
assert twins[False] < twins[True] - 0.15
assert all(share > 0.6 for share in in_order) and abs(in_order[1] - in_order[0]) < 0.1  # most from the start

for _ in range(3):
    explorer.step.click()
assert explorer.points.steps == 3 and len(explorer.figures[2].data[0].y) == 4
before = list(explorer.figures[4].data[0].y)
explorer.temperature.value = 0.5
assert explorer.figures[4].data[0].y[0] < before[0]
before = list(explorer.figures[3].data[0].y)
explorer.weights["ScoreMSE"].value = 5
assert explorer.figures[3].data[0].y[1] > before[1]
explorer.weights["ScoreMSE"].value, explorer.temperature.value = 3, 0.07  # as it was, for the next test
explorer.reset.click()
assert explorer.points.steps == 0 and not explorer.notice.value
"""


def test_what_it_computes(notebook):
    notebook.execute(CHECKS)
    check_pictures(notebook.content())
    assert len([cell for cell in notebook.content().cells if cell.cell_type == "code"]) <= 9


ANCHORS, COMPONENTS, SHARES, FALSE_MASS = (0, 2), (2, 0), (3, 0), (4, 1)  # figure and trace


@pytest.mark.slow
def test_figures_are_drawn_as_they_are_held_and_fit(opened):
    opened.check_drawn()
    opened.check_boxes()


def test_play_leaves_the_controls_alive_and_pause_stops_it(opened):
    play = opened.page.locator(".widget-play button").first

    def steps():
        return len(opened.data(*COMPONENTS, "x"))

    def wait_for(what):
        for _ in range(600):
            if what():
                return
            opened.page.wait_for_timeout(200)
        raise AssertionError("nothing has happened in 120 s")

    play.click()
    wait_for(lambda: steps() > 5)
    assert any(opened.data(*FALSE_MASS, "y"))
    opened.toggle("tell the loss which they are")  # while it plays
    wait_for(lambda: not any(opened.data(*FALSE_MASS, "y")))
    seen = steps()
    wait_for(lambda: steps() > seen + 5)
    play.click()
    opened._settle()
    seen = steps()
    opened.page.wait_for_timeout(600)  # two steps of the player
    assert steps() == seen  # no queue of steps is worked off
    opened.screenshot("played")
    with opened.changes(figure=2):
        opened.click_text("Reset")
    assert steps() == 1
    opened.toggle("tell the loss which they are")


def test_in_the_browser(opened):
    opened.screenshot("before")
    before = opened.data(*ANCHORS, "x")
    for _ in range(2):
        with opened.changes(figure=2):
            opened.click_text("Step")
    assert opened.data(*ANCHORS, "x") != before  # what WebGL has drawn cannot be read
    assert len(opened.data(*COMPONENTS, "x")) == 3
    with opened.changes(figure=4):
        opened.slide("temperature", "ArrowLeft", presses=4)
    with opened.changes(figure=3):
        opened.slide("λ", "ArrowRight", presses=4, beside="ScoreMSE")
    with opened.changes(figure=3):
        opened.toggle("PairwiseRank")
    assert opened.data(*SHARES, "y")[2] == 0
    with opened.changes(figure=4):
        opened.slide("batch size", "ArrowLeft", presses=4)
    with opened.changes(figure=4):
        opened.toggle("tell the loss which they are")
    assert not any(opened.data(*FALSE_MASS, "y"))
    with opened.changes(figure=4):
        opened.slide("false negatives", "ArrowRight", presses=2)
    with opened.changes(figure=3):
        opened.select("terms of task", "ocr")
    assert opened.data(*SHARES, "y")[4] > 0
    opened.check_drawn()
    opened.theme("dark")
    opened.screenshot("dark")
