from __future__ import annotations

NAME = "04_geometry_before_and_after"


def test_callbacks(execute):
    execute(
        NAME,
        """
first, second = explorer.linked.maps
assert len(first.data[0].x) == len(passages) == len(set(passages)) == 204
assert explorer.projections["umap"]["before"].method == "umap"  # and not what stands in for it

coordinates = list(second.data[0].x)
explorer.method.value = "umap"
assert list(second.data[0].x) != coordinates

explorer.linked.find.value = "xe buýt"
assert 0 < len(explorer.linked.picked) == sum("xe buýt" in passage.casefold() for passage in passages)

assert float(explorer.overlap.mean()) == kept
explorer.k.value = 40
assert float(explorer.overlap.mean()) != kept

explorer.colour.value = "overlap"
assert list(first.data[0].marker.color) == explorer.overlap.tolist()

# What it says above its figures.
assert shared["before"] > shared["TF-IDF"] > 3 * shared["chance"] and abs(shared["after"] - shared["before"]) < 0.05
nearest = (embeddings[1] @ embeddings[1].T).fill_diagonal_(-1).topk(5).indices
by_hand = sum(labels[j] == labels[i] for i, row in enumerate(nearest.tolist()) for j in row) / (5 * 204)
assert abs(by_hand - shared["after"]) < 0.002  # ties may be broken either way
assert all(of["contradiction"] < 0.55 < of["neutral"] for of in nearer.values())
assert gap > 0
assert not explorer.notice.value

# A model of one's own: before is its own pooling and head over random weights.
after.save("own")
MODEL, trained = "own", after
get_ipython().run_cell(In[2]).raise_error()
some = passages[:5]
assert (after.encode(some) == trained.encode(some)).all() and not (before.encode(some) == trained.encode(some)).any()
same = {name for name, value in before.named_parameters() if (value == trained.get_parameter(name)).all()}
assert same >= {"1.attention_context_vector"} and len(same) < 5
""",
    )


def place_of_the_last_point_to_the_right(notebook):
    """Where nothing covers it: fractions of the plot area of figure 0."""
    axes = notebook.evaluate("['xaxis', 'yaxis'].map(axis => stVi.figure(0)._fullLayout[axis].range)")
    xs, ys = notebook.data(0, 0, "x"), notebook.data(0, 0, "y")
    x, y = max(zip(xs, ys, strict=True))
    (left, right), (bottom, top) = axes
    return (x - left) / (right - left), (top - y) / (top - bottom)


def test_in_the_browser(open_notebook):
    notebook = open_notebook(NAME, **{'sample_nli(\\"test\\")': 'sample_nli(\\"test\\").select(range(90))'})
    points = len(notebook.data(0, 0, "x"))
    notebook.screenshot("first")

    with notebook.changes(figure=1):
        notebook.lasso(figure=0, points=[(0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7)])
    assert "picked" in notebook.text(".st-vi-picked")
    for figure, other in [(1, 0), (0, 1), (1, 0)]:  # in the lines of the lassos before
        with notebook.changes(figure=other):
            notebook.lasso(figure, points=[(0.4, 0.3 + figure / 10), (0.8, 0.3), (0.7, 0.9), (0.5, 0.8 - other / 10)])
    notebook.screenshot("lasso")
    assert len(notebook.data(0, 1, "x")) == len(notebook.data(1, 1, "x")) > 0
    with notebook.changes(figure=0):
        notebook.click_text("let go")
    assert not notebook.data(0, 1, "x")

    with notebook.changes(selector=".st-vi-picked"):
        notebook.click_at(0, *place_of_the_last_point_to_the_right(notebook))
    assert "of 5 nearest neighbours" in notebook.text(".st-vi-picked")

    with notebook.changes(figure=0):
        notebook.fill("find text", "Tuyến xe buýt 22 chạy từ ga Phú Sa")
    assert not any(notebook.data(figure, trace, "selectedpoints") for figure in (0, 1) for trace in range(4))
    assert all(len(notebook.data(figure, 0, "marker.symbol")) == points for figure in (0, 1))  # each has its own yet
    with notebook.changes(selector=".st-vi-neighbours"):
        notebook.slide("neighbours", "ArrowLeft", presses=3)
    assert "of 2 nearest neighbours" in notebook.text(".st-vi-picked")
    notebook.screenshot("neighbours")

    with notebook.changes(figure=1):
        notebook.select("map", "UMAP")
    assert "mean nothing" in notebook.text(".st-vi-caution")
    with notebook.changes(figure=0):
        notebook.select("labels", "museums")
    notebook.screenshot("umap")
    with notebook.changes(figure=0):
        notebook.select("colour by", "overlap")
    notebook.theme("dark")
    notebook.screenshot("dark")
