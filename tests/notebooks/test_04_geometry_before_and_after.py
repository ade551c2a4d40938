from __future__ import annotations

NAME = "04_geometry_before_and_after"


def test_callbacks(execute):
    execute(
        NAME,
        """
import re

first, second = explorer.linked.maps
assert len(first.data[0].x) == len(sentences) == len(set(sentences))
assert explorer.projections["umap"]["before"].method == "umap"  # and not what stands in for it

coordinates = list(second.data[0].x)
explorer.method.value = "umap"
assert list(second.data[0].x) != coordinates

explorer.linked.find.value = "phở"
assert 0 < len(explorer.linked.picked) == sum("phở" in sentence.casefold() for sentence in sentences)

kept = explorer.overlap.mean()
explorer.k.value = 40
assert explorer.overlap.mean() != kept

explorer.colour.value = "overlap"
assert list(first.data[0].marker.color) == explorer.overlap.tolist()

means = {trace.name.split(":")[0]: float(re.search("mean ([-.0-9]+)", trace.name)[1])
         for trace in explorer.similarities[1].data}
assert means["entailment, trained on"] > means["entailment, held out"] > means["random"]
assert gap > 0
assert not explorer.notice.value

# A model of one's own: before is its own pooling and head over random weights.
after.save("own")
MODEL, trained = "own", after
get_ipython().run_cell(In[2]).raise_error()
some = sentences[:5]
assert (after.encode(some) == trained.encode(some)).all() and not (before.encode(some) == trained.encode(some)).any()
same = {name for name, value in before.named_parameters() if (value == trained.get_parameter(name)).all()}
assert same >= {name for name, _ in before.named_parameters() if not name.startswith("0.")} and len(same) > 4
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
    notebook = open_notebook(NAME)
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
    assert "of 10 nearest neighbours" in notebook.text(".st-vi-picked")

    with notebook.changes(figure=0):
        notebook.fill("find text", "Bà ngoại tôi năm nay bảy mươi tám tuổi")
    assert not any(notebook.data(figure, trace, "selectedpoints") for figure in (0, 1) for trace in range(4))
    assert all(len(notebook.data(figure, 0, "marker.symbol")) == points for figure in (0, 1))  # each has its own yet
    with notebook.changes(selector=".st-vi-neighbours"):
        notebook.slide("neighbours", "ArrowLeft", presses=3)
    assert "of 7 nearest neighbours" in notebook.text(".st-vi-picked")
    notebook.screenshot("neighbours")

    with notebook.changes(figure=1):
        notebook.select("map", "UMAP")
    assert "mean nothing" in notebook.text(".st-vi-caution")
    with notebook.changes(figure=0):
        notebook.select("labels", "science")
    notebook.screenshot("umap")
    with notebook.changes(figure=0):
        notebook.select("colour by", "overlap")
    notebook.theme("dark")
    notebook.screenshot("dark")
