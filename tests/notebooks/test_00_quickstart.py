"""The quick start runs, its figures are what it says, and its matrix can be switched."""

from __future__ import annotations

import pytest

from tests.notebooks.pictures import check_pictures

CHECKS = """
assert bool((after == model.encode(sentences)).all())
assert len(sentences) == 9 and set(triplets["triplets"]["anchor"]).isdisjoint(rows["test"]["premise"])

# What it says above its figures.
assert abs(figures["after"]["triplet_accuracy"] - figures["before"]["triplet_accuracy"]) < 2 * error
assert abs(figures["after"]["triplet_accuracy"] - 0.5) < 2 * error
assert partners["after"] - strangers["after"] > partners["before"] - strangers["before"] + 0.1
assert strangers["after"] < strangers["before"]

one, other = cosines["before"], cosines["after"]
assert abs(other[0][1] - float(after[0] @ after[1])) < 1e-5
assert list(figure.data[0].z[0]) == other[0]
assert polyglot.encode(question).shape == (128,)
"""


def test_what_it_computes(notebook):
    notebook.execute(CHECKS)
    check_pictures(notebook.content())
    assert "train_runtime" not in str(notebook.content())  # the log of the trainer
    assert len([cell for cell in notebook.content().cells if cell.cell_type == "code"]) <= 10


@pytest.mark.slow
def test_figures_are_drawn_as_they_are_held_and_fit(opened):
    opened.check_drawn()
    opened.check_boxes()


def test_in_the_browser(opened):
    after = opened.data(0, 0, "z")
    for name in ("before", "after"):
        with opened.changes(figure=0):
            opened.click_drawn(name)
        assert (opened.data(0, 0, "z") == after) == (name == "after")
    opened.screenshot("after")
    opened.check_drawn()
    opened.theme("dark")
    opened.screenshot("dark")
