"""The quick start runs, its figures are what it says, and its matrix can be switched."""

from __future__ import annotations

CHECKS = """
assert bool((after == model.encode(sentences)).all())
assert len(sentences) == 9 and set(triplets["triplets"]["anchor"]).isdisjoint(rows["test"]["premise"])

# What it says above its figures.
assert figures["after"]["triplet_accuracy"] > figures["before"]["triplet_accuracy"] + 0.01
assert figures["after"]["nli_spearman"] > figures["before"]["nli_spearman"]
assert partners["after"] - strangers["after"] > partners["before"] - strangers["before"] + 0.1

one, other = cosines["before"], cosines["after"]
assert abs(other[0][1] - float(after[0] @ after[1])) < 1e-5
assert list(figure.data[0].z[0]) == other[0]
assert polyglot.encode(question).shape == (128,)
"""


def test_what_it_computes(execute):
    notebook = execute("00_quickstart", CHECKS)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1 <= 10


def test_in_the_browser(open_notebook):
    notebook = open_notebook("00_quickstart", **{"num_train_epochs=2": "max_steps=2"})
    after = notebook.data(0, 0, "z")
    for name in ("before", "after"):
        with notebook.changes(figure=0):
            notebook.click_drawn(name)
        assert (notebook.data(0, 0, "z") == after) == (name == "after")
    notebook.screenshot("after")
    notebook.theme("dark")
    notebook.screenshot("dark")
