"""The laboratory trains and answers to its controls, and the log of the small training is what is drawn."""

from __future__ import annotations

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
assert float(shares[strongest][0]) == max(float(share) for share, _ in shares.values())

for _ in range(3):
    explorer.step.click()
assert explorer.points.steps == 3 and len(explorer.figure.data[7].y) == 4
before = list(explorer.figure.data[14].y)
explorer.temperature.value = 0.5
assert explorer.figure.data[14].y[0] < before[0]
before = list(explorer.figure.data[12].y)
explorer.weights["ScoreMSE"].value = 5
assert explorer.figure.data[12].y[1] > before[1]
explorer.reset.click()
assert explorer.points.steps == 0 and not explorer.notice.value
"""


def test_what_it_computes(execute):
    notebook = execute("05_loss_laboratory", CHECKS)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1 <= 9


ANCHORS, COMPONENTS, SHARES, FALSE_MASS = 2, 7, 12, 15  # traces of the first figure


def test_in_the_browser(open_notebook):
    notebook = open_notebook("05_loss_laboratory")
    notebook.screenshot("before")
    before = notebook.data(0, ANCHORS, "x")
    for _ in range(2):
        with notebook.changes(figure=0):
            notebook.click_text("Step")
    assert notebook.data(0, ANCHORS, "x") != before  # what WebGL has drawn cannot be read
    assert len(notebook.data(0, COMPONENTS, "x")) == 3
    with notebook.changes(figure=0):
        notebook.slide("temperature", "ArrowLeft", presses=4)
    with notebook.changes(figure=0):
        notebook.slide("λ ScoreMSE", "ArrowRight", presses=4)
    with notebook.changes(figure=0):
        notebook.toggle("PairwiseRank")
    assert notebook.data(0, SHARES, "y")[2] == 0
    with notebook.changes(figure=0):
        notebook.slide("batch size", "ArrowLeft", presses=4)
    with notebook.changes(figure=0):
        notebook.toggle("tell the loss which they are")
    assert not any(notebook.data(0, FALSE_MASS, "y"))
    with notebook.changes(figure=0):
        notebook.slide("false negatives", "ArrowRight", presses=2)
    with notebook.changes(figure=0):
        notebook.select("terms of task", "ocr")
    assert notebook.data(0, SHARES, "y")[4] > 0
    notebook.theme("dark")
    notebook.screenshot("dark")


def test_play_leaves_the_controls_alive_and_pause_stops_it(open_notebook):
    notebook = open_notebook("05_loss_laboratory")
    play = notebook.page.locator(".widget-play button").first

    def steps():
        return len(notebook.data(0, COMPONENTS, "x"))

    def wait_for(what):
        for _ in range(600):
            if what():
                return
            notebook.page.wait_for_timeout(200)
        raise AssertionError("nothing has happened in 120 s")

    play.click()
    wait_for(lambda: steps() > 5)
    assert any(notebook.data(0, FALSE_MASS, "y"))
    notebook.toggle("tell the loss which they are")  # while it plays
    wait_for(lambda: not any(notebook.data(0, FALSE_MASS, "y")))
    seen = steps()
    wait_for(lambda: steps() > seen + 5)
    play.click()
    notebook.page.wait_for_timeout(1500)
    seen = steps()
    notebook.page.wait_for_timeout(1500)
    assert steps() == seen  # no queue of steps is worked off
    notebook.screenshot("played")
    with notebook.changes(figure=0):
        notebook.click_text("Reset")
    assert steps() == 1
