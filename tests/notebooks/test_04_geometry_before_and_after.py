"""The maps answer to every control, and neighbours are counted as they are."""

from __future__ import annotations

import pytest

from tests.notebooks.pictures import check_pictures

CHECKS = """
import os

first, second = explorer.linked.maps
assert len(first.data[0].x) == len(passages) == len(set(passages)) == 204
assert explorer.projections["umap"]["before"].method == "umap"  # and not what stands in for it
assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])  # numba has not changed them

groups = torch.eye(2, 8).repeat_interleave(20, 0) + torch.randn(40, 8, generator=torch.manual_seed(0)) * 0.05
projection = project(groups, "umap")
assert (projection.method, projection.notice, projection.axes) == ("umap", "", ("", ""))
distances = torch.cdist(*[torch.from_numpy(projection.points)] * 2).fill_diagonal_(torch.inf)
assert ((distances.argmin(1) < 20) == (torch.arange(40) < 20)).all()

coordinates = list(second.data[0].x)
explorer.method.value = "umap"
assert list(second.data[0].x) != coordinates

explorer.linked.find.value = "xe buýt"
assert 0 < len(explorer.linked.picked) == sum("xe buýt" in passage.casefold() for passage in passages)

assert float(explorer.overlap.mean()) == kept
sides = [(x @ x.T).fill_diagonal_(-1).topk(5).indices.tolist() for x in embeddings]
by_hand = sum(len(set(a) & set(b)) for a, b in zip(*sides)) / (5 * 204)
assert abs(by_hand - kept) < 0.002 and 10 * by_chance < 0.5 < kept < 1
explorer.k.value = 40
assert float(explorer.overlap.mean()) != kept

explorer.colour.value = "overlap"
assert list(first.data[0].marker.color) == explorer.overlap.tolist()

explorer.method.value, explorer.k.value, explorer.colour.value = "pca", 5, "labels"  # as it was, for the next test
explorer.linked.release.click()
assert list(second.data[0].x) == coordinates and not len(explorer.linked.picked)

# What it says above its figures.
assert shared["before"] > shared["TF-IDF"] > 3 * shared["chance"] and abs(shared["after"] - shared["before"]) < 0.05
nearest = (embeddings[1] @ embeddings[1].T).fill_diagonal_(-1).topk(5).indices
by_hand = sum(labels[j] == labels[i] for i, row in enumerate(nearest.tolist()) for j in row) / (5 * 204)
assert abs(by_hand - shared["after"]) < 0.002  # ties may be broken either way
assert all(of["contradiction"] < 0.55 < of["neutral"] for of in nearer.values())
assert 0 < gap["trained"] < gap["random weights"]
assert found["trained"] > 0.85 and found["random weights"] < 0.1
assert not explorer.notice.value

# A model of one's own: before is its own pooling and head over random weights.
after.save("own")
MODEL, trained = "own", after
get_ipython().run_cell(In[2]).raise_error()
some = passages[:5]
assert (after.encode(some) == trained.encode(some)).all() and not (before.encode(some) == trained.encode(some)).any()
same = {name for name, value in before.named_parameters() if (value == trained.get_parameter(name)).all()}
assert same >= {"1.attention_context_vector"} and len(same) < 5

# Its vectors may have any length; cosines are cosines.
from sentence_transformers import SentenceTransformer

before = after = SentenceTransformer(modules=[*trained][:-1])
of_unit_vectors = cosines["after"]["neutral"]
get_ipython().run_cell(next(cell for cell in In if "cosines[name] = {" in cell)).raise_error()
assert torch.allclose(cosines["after"]["neutral"], of_unit_vectors, atol=1e-4)
"""


def test_what_it_computes(notebook):
    notebook.execute(CHECKS)
    check_pictures(notebook.content())


def place_of_the_last_point_to_the_right(notebook):
    """Where nothing covers it: fractions of the plot area of figure 0."""
    axes = notebook.evaluate("['xaxis', 'yaxis'].map(axis => stVi.figure(0)._fullLayout[axis].range)")
    xs, ys = notebook.data(0, 0, "x"), notebook.data(0, 0, "y")
    x, y = max(zip(xs, ys, strict=True))
    (left, right), (bottom, top) = axes
    return (x - left) / (right - left), (top - y) / (top - bottom)


@pytest.mark.slow
def test_figures_are_drawn_as_they_are_held_and_fit(opened):
    opened.check_drawn()
    opened.check_boxes()


def test_in_the_browser(opened):
    points = len(opened.data(0, 0, "x"))
    opened.screenshot("first")

    with opened.changes(figure=1):
        opened.lasso(figure=0, points=[(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)])
    assert "picked" in opened.text(".st-vi-picked")
    for figure, other in [(1, 0), (0, 1), (1, 0)]:  # in the lines of the lassos before
        with opened.changes(figure=other):
            opened.lasso(figure, points=[(0.4, 0.3 + figure / 10), (0.8, 0.3), (0.7, 0.9), (0.5, 0.8 - other / 10)])
    opened.screenshot("lasso")
    assert len(opened.data(0, 1, "x")) == len(opened.data(1, 1, "x")) > 0
    with opened.changes(figure=0):
        opened.click_text("let go")
    assert not opened.data(0, 1, "x")

    with opened.changes(selector=".st-vi-picked"):
        opened.click_at(0, *place_of_the_last_point_to_the_right(opened))
    assert "of 5 nearest neighbours" in opened.text(".st-vi-picked")

    with opened.changes(figure=0):
        opened.fill("find text", "Tuyến xe buýt 22 chạy từ ga Phú Sa")
    assert not any(opened.data(figure, trace, "selectedpoints") for figure in (0, 1) for trace in range(4))
    assert all(len(opened.data(figure, 0, "marker.symbol")) == points for figure in (0, 1))  # each has its own yet
    with opened.changes(selector=".st-vi-neighbours"):
        opened.slide("neighbours", "ArrowLeft", presses=3)
    assert "of 2 nearest neighbours" in opened.text(".st-vi-picked")
    opened.screenshot("neighbours")

    with opened.changes(figure=1):
        opened.select("map", "UMAP")
    assert "mean nothing" in opened.text(".st-vi-caution")
    with opened.changes(figure=0):
        opened.select("labels", "museums")
    opened.screenshot("umap")
    with opened.changes(figure=0):
        opened.select("colour by", "overlap")
    opened.check_drawn()
    opened.theme("dark")
    opened.screenshot("dark")
