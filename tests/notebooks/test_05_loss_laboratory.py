"""The laboratory trains and answers to its controls, and the log of the small training is what is drawn."""

from __future__ import annotations

CHECKS = """
logged = [entry for entry in log if "loss" in entry]
assert list(components.data[0].y) == [entry["dle/text_pair_info_nce"] for entry in logged]
assert len(path) == 1 + len(logged) // 4 and list(plane.data[0].y) == [alignment for alignment, _ in path]
assert abs(sum(float(share) for share, _ in shares.values()) - 1) < 1e-5
assert logged[-1]["dle/text_pair_info_nce"] < logged[0]["dle/text_pair_info_nce"]

for _ in range(3):
    explorer.step.click()
assert explorer.points.steps == 3 and len(explorer.components.data[0].y) == 4
before = list(explorer.mass.data[0].y)
explorer.temperature.value = 0.5
assert explorer.mass.data[0].y[0] < before[0]
before = list(explorer.shares.data[0].y)
explorer.weights["ScoreMSE"].value = 5
assert explorer.shares.data[0].y[1] > before[1]
explorer.reset.click()
assert explorer.points.steps == 0 and not explorer.notice.value
"""


def test_what_it_computes(execute):
    notebook = execute("05_loss_laboratory", CHECKS)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1 <= 8


SPHERE, PLANE, COMPONENTS, SHARES, MASS = range(5)


def test_in_the_browser(open_notebook):
    notebook = open_notebook("05_loss_laboratory")
    notebook.screenshot("before")
    before = notebook.data(SPHERE, 2, "x")
    for figure in (PLANE, COMPONENTS):
        with notebook.changes(figure=figure):
            notebook.click_text("Step")
    assert notebook.data(SPHERE, 2, "x") != before  # what WebGL has drawn cannot be read
    assert len(notebook.data(COMPONENTS, 0, "x")) == 3
    with notebook.changes(figure=MASS):
        notebook.slide("temperature", "ArrowLeft", presses=4)
    with notebook.changes(figure=SHARES):
        notebook.slide("λ ScoreMSE", "ArrowRight", presses=4)
    with notebook.changes(figure=SHARES):
        notebook.toggle("PairwiseRank")
    assert notebook.data(SHARES, 0, "y")[2] == 0
    with notebook.changes(figure=MASS):
        notebook.slide("batch size", "ArrowLeft", presses=4)
    with notebook.changes(figure=MASS):
        notebook.toggle("tell the loss which they are")
    assert not any(notebook.data(MASS, 1, "y"))
    with notebook.changes(figure=PLANE):
        notebook.slide("false negatives", "ArrowRight", presses=2)
    with notebook.changes(figure=SHARES):
        notebook.select("terms of task", "ocr")
    assert notebook.data(SHARES, 0, "y")[4] > 0
    notebook.theme("dark")
    notebook.screenshot("dark")


def test_play_leaves_the_controls_alive_and_pause_stops_it(open_notebook):
    notebook = open_notebook("05_loss_laboratory")
    play = notebook.page.locator(".widget-play button").first

    def steps():
        return len(notebook.data(COMPONENTS, 0, "x"))

    def wait_for(what):
        for _ in range(100):
            if what():
                return
            notebook.page.wait_for_timeout(200)
        raise AssertionError("nothing has happened in 20 s")

    play.click()
    wait_for(lambda: steps() > 5)
    assert any(notebook.data(MASS, 1, "y"))
    notebook.toggle("tell the loss which they are")  # while it plays
    wait_for(lambda: not any(notebook.data(MASS, 1, "y")))
    seen = steps()
    wait_for(lambda: steps() > seen + 5)
    play.click()
    notebook.page.wait_for_timeout(1500)
    seen = steps()
    notebook.page.wait_for_timeout(1500)
    assert steps() == seen  # no queue of steps is worked off
    notebook.screenshot("played")
    with notebook.changes(figure=PLANE):
        notebook.click_text("Reset")
    assert steps() == 1
