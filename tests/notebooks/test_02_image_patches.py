"""The notebook's numbers hold, masks change what they should, and every control changes what is drawn."""

from __future__ import annotations

CHECKS = """
assert (learned["recall@1"] > 50 * learned["chance"]).all() and (learned["recall@10"] > 90 * learned["chance"]).all()
assert shares["cosine falls by"] > 80 > 2 * shares["random patch"]
assert shares["cosine falls by"] > shares["weight"] + 30 and len(hits["weight"]) == 30
assert np.mean(on_ink) > 0.8 > 2 * np.mean(uniform)
view = views["a picture"]
assert abs(view.image + view.text + view.special - 1) < 1e-5
encoded = model.encode(scene, prompt_name=prompt, convert_to_tensor=True)
assert float((encoded - view.embedding).abs().max()) < 1e-5
assert explorer.effect.similarity > 0.4 and len(explorer.map.data[0].z) == 4
assert np.array(explorer.map.data[0].z).argmax() in {0, 1, 4, 5}  # the circle
explorer.query.value = "Trong ảnh có một ngôi sao xanh dương."
assert np.array(explorer.map.data[0].z).argmax() // 4 >= 2  # the star is below
explorer.query.value = "Trong ảnh có một hình tròn đỏ."
assert [len(each.maps) for each in views.values()] == [1, 1, 2]

before = explorer.similarities.data[0].x[0]
explorer._clicked([[0, 0]])
explorer.map.plotly_relayout({"selections": [{"type": "path", "path": "M0,0L160,0L160,160L0,160Z"}]})  # the circle
assert len(explorer.masked) == 4 and len(explorer.similarities.data[0].x) == 4
assert explorer.similarities.data[0].x[1] < before
explorer.colours.value = "weights"
explorer.picture.value = "oblong"
assert len(explorer.map.data[0].z[0]) > len(explorer.map.data[0].z) and not explorer.masked
explorer.budget.value = 224 * 224
assert len(explorer.map.data[0].z) > 3
explorer.picture.value = "writing"
explorer.text.value = "Trong ảnh viết gì?"
assert explorer.masses.data[1].x[0] > 0
explorer.query.value = ""
assert "empty" in explorer.notice.value
"""


def test_what_it_computes(execute):
    notebook = execute("02_image_patches", CHECKS)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1 <= 9


def test_in_the_browser(open_notebook):
    """Figures: 0 the map, 1 similarities, 2 masses, 3 resolutions; then the bars of the last cells."""
    notebook = open_notebook("02_image_patches")
    notebook.screenshot("before")
    fall = notebook.data(0, 0, "z")
    with notebook.changes(figure=0):
        notebook.fill("query", "Trong ảnh có một ngôi sao xanh dương.")
    assert notebook.data(0, 0, "z") != fall
    notebook.screenshot("star")
    with notebook.changes(figure=0):
        notebook.select("colours", "weight")
    whole = notebook.data(0, 0, "z")
    assert all(0 < value < 1 for row in whole for value in row)
    with notebook.changes(figure=1):
        notebook.click_at(0, 0.3, 0.3)  # the middle of a patch has no priority over its rest
    assert [[z is not None for z in row] for row in notebook.data(0, 1, "z")] == [
        [(row, column) == (1, 1) for column in range(4)] for row in range(4)
    ]
    with notebook.changes(figure=1):
        notebook.lasso(0, [(0.02, 0.02), (0.48, 0.02), (0.48, 0.48), (0.02, 0.48)])
    assert sum(z is not None for row in notebook.data(0, 1, "z") for z in row) == 4
    assert len(notebook.data(1, 0, "x")) == 4
    notebook.screenshot("masked")
    with notebook.changes(figure=0):
        notebook.click_text("clear mask")
    assert notebook.data(0, 0, "z") == whole

    with notebook.changes(figure=0):
        notebook.slide("opacity", "ArrowLeft", presses=4)
    with notebook.changes(figure=0):
        notebook.slide("colour range", "ArrowLeft", presses=4, handle=1)
    with notebook.changes(figure=0):
        notebook.select("picture", "oblong")
    with notebook.changes(figure=0):
        notebook.select("pixel budget", "at most 64 patches")
    assert len(notebook.data(0, 0, "z")) == 5 and len(notebook.data(0, 0, "z.0")) == 11
    with notebook.changes(figure=1):
        notebook.lasso(0, [(0.02, 0.02), (0.3, 0.02), (0.3, 0.45), (0.02, 0.45)])
    with notebook.changes(figure=1):
        notebook.lasso(0, [(0.05, 0.3), (0.95, 0.3), (0.95, 0.7), (0.05, 0.7)])  # begins inside of the last one
    assert notebook.data(0, 1, "z.0.0") == notebook.data(0, 1, "z.2.8") == 1
    notebook.screenshot("oblong")
    with notebook.changes(figure=1):
        notebook.fill("query", "Một hình vuông vàng.")
    with notebook.changes(figure=2):
        notebook.fill("text", "Hình vuông có màu gì?")
    with notebook.changes(figure=3):
        notebook.select("picture", "writing")
    with notebook.changes(figure=1):
        notebook.fill("query", "")
    assert "empty" in notebook.text(".st-vi-notice")
    notebook.theme("dark")
    notebook.screenshot("dark")
