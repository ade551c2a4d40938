"""The notebook's numbers hold, and every control changes what is drawn."""

from __future__ import annotations

CHECKS = """
import numpy as np

assert abs(model.encode(sentence, prompt=prefix) - view.embedding.numpy()).max() < 1e-5
assert list(table.index) == sentence.split()
assert table["drift, deleted from the text"].min() > 0

# What it says above its figures.
assert abs(sum(times_uniform) - len(tokens)) < 1e-3 and max(times_uniform) > 1.3 and min(times_uniform) < 0.7
assert len(held_out) == 200
assert ratio["trained"] < 0.75 < 0.85 < ratio["not trained"]
assert times > 1.2 and means["largest weight"] > means["any syllable"] > means["smallest weight"]

before = list(explorer.bars.data[0].y)
explorer.temperature.value = 0.3
assert max(explorer.bars.data[0].y) > max(before)
explorer.temperature.value = 1
np.testing.assert_allclose(explorer.bars.data[0].y, before, atol=1e-6)
explorer.prefix_in_pool.value = False
assert list(explorer.bars.data[0].y)[1:3] == [0, 0]
explorer.prefix_in_pool.value = True
explorer.plain.value = True
assert "phố" not in explorer.tokens.value and "pho" in explorer.tokens.value
explorer.plain.value = False
explorer.delete.value = 2
expected = 1 - float(model.encode(sentence, prompt=prefix) @ model.encode(sentence.replace("Hà ", ""), prompt=prefix))
assert f"{expected:.3f}" in explorer.summary.value
explorer.text.value = ""
assert "empty" in explorer.notice.value
explorer.text.value = "mưa " * 300
assert "limit" in explorer.notice.value
"""


def test_what_it_computes(execute):
    notebook = execute("01_where_does_the_pool_look", CHECKS)
    assert len([cell for cell in notebook.cells if cell.cell_type == "code"]) - 1 <= 8


EXPLORER = 3  # after three plain figures


def test_in_the_browser(open_notebook):
    notebook = open_notebook("01_where_does_the_pool_look")
    notebook.screenshot("before")
    for width in (900, 1400):
        notebook.widen(width)
        drawn, room = notebook.widths(EXPLORER)
        assert 0.9 * room < drawn <= room and 0.5 * width < room < width
    model = notebook.data(EXPLORER, 0, "y")
    with notebook.changes(figure=EXPLORER):
        notebook.slide("temperature", "ArrowLeft", presses=5)
    assert max(notebook.data(EXPLORER, 0, "y")) > max(model)
    with notebook.changes(figure=EXPLORER):
        notebook.slide("temperature", "ArrowRight", presses=5)
    with notebook.changes(selector="#st-vi-tokens"):
        notebook.toggle("prefix in pool")
    assert notebook.data(EXPLORER, 0, "y")[1:3] == [0, 0]
    with notebook.changes(figure=EXPLORER):
        notebook.toggle("prefix in pool")

    with notebook.changes(selector="#st-vi-tokens"):
        notebook.page.get_by_role("button", name="mưa", exact=True).click()  # a table has the word, too
    assert "Without “mưa”" in notebook.text("#st-vi-pool")
    notebook.screenshot("deleted")
    with notebook.changes(selector="#st-vi-pool"):
        notebook.click_at(EXPLORER, (4 + 0.6) / (len(model) + 0.2), 0.97)  # the fifth bar
    assert "Without “nay”" in notebook.text("#st-vi-pool")
    with notebook.changes(figure=EXPLORER):
        notebook.select("unit", "token")
    assert "Kh" in notebook.text("#st-vi-drift").split()

    with notebook.changes(figure=EXPLORER):
        notebook.toggle("strip diacritics")
    assert "Hà" not in notebook.text("#st-vi-tokens")
    notebook.screenshot("stripped")
    with notebook.changes(figure=EXPLORER):
        notebook.toggle("strip diacritics")
    with notebook.changes(figure=EXPLORER):
        notebook.select("prefix", "none")
    with notebook.changes(figure=EXPLORER):
        notebook.fill("text", "Chị bán <b>phở</b> ở đầu ngõ nghỉ một hôm.")
    assert "<b>phở</b>" in notebook.text("#st-vi-tokens").replace("\n", "").replace(" ", "")
    with notebook.changes(figure=EXPLORER):
        notebook.fill("text", "")
    assert "empty" in notebook.text(".st-vi-notice")
    with notebook.changes(figure=EXPLORER):
        notebook.fill("text", "Trời mưa to. " * 90)
    assert "limit" in notebook.text(".st-vi-notice")
    notebook.screenshot("long")
    with notebook.changes(figure=EXPLORER):
        notebook.fill("text", "Trời mưa to ở Hà Nội.")
    notebook.theme("dark")
    notebook.screenshot("dark")
