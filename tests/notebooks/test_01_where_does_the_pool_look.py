"""The notebook's numbers hold, and every control changes what is drawn."""

from __future__ import annotations

import pytest

from tests.notebooks.pictures import check_pictures

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
assert f"{agreement:.2f}" in explorer.summary.value and agreement > 0

before = list(explorer.bars.data[0].y)
explorer.temperature.value = 10**-0.5  # one of the steps, or the page would answer with the nearest
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
explorer.text.value = sentence  # as it was, for the next test
np.testing.assert_allclose(explorer.bars.data[0].y, before, atol=1e-6)
"""


def test_what_it_computes(notebook):
    notebook.execute(CHECKS)
    check_pictures(notebook.content())
    assert len([cell for cell in notebook.content().cells if cell.cell_type == "code"]) <= 8


EXPLORER = 3  # after three plain figures


@pytest.mark.slow
def test_figures_are_drawn_as_they_are_held_and_fit(opened):
    opened.check_drawn()
    opened.check_boxes()


def test_in_the_browser(opened):
    opened.screenshot("before")
    widths = "[...document.querySelectorAll('.jp-RenderedMarkdown img')].map(image => image.naturalWidth)"
    assert opened.evaluate(widths) == [760, 760]  # the committed pictures near the top
    for width in (900, 1400):
        opened.widen(width)
        drawn, room = opened.widths(EXPLORER)
        assert 0.9 * room < drawn <= room and 0.5 * width < room < width
    model = opened.data(EXPLORER, 0, "y")
    with opened.changes(figure=EXPLORER):
        opened.slide("temperature", "ArrowLeft", presses=5)
    assert max(opened.data(EXPLORER, 0, "y")) > max(model)
    with opened.changes(figure=EXPLORER):
        opened.slide("temperature", "ArrowRight", presses=5)
    with opened.changes(selector="#st-vi-tokens"):
        opened.toggle("prefix in pool")
    assert opened.data(EXPLORER, 0, "y")[1:3] == [0, 0]
    with opened.changes(figure=EXPLORER):
        opened.toggle("prefix in pool")

    with opened.changes(selector="#st-vi-tokens"):
        opened.page.get_by_role("button", name="mưa", exact=True).click()  # a table has the word, too
    assert "Without “mưa”" in opened.text("#st-vi-pool")
    opened.screenshot("deleted")
    with opened.changes(selector="#st-vi-pool"):
        opened.click_at(EXPLORER, (4 + 0.6) / (len(model) + 0.2), 0.97)  # the fifth bar
    assert "Without “nay”" in opened.text("#st-vi-pool")
    with opened.changes(figure=EXPLORER):
        opened.select("unit", "token")
    assert "Kh" in opened.text("#st-vi-drift").split()

    with opened.changes(figure=EXPLORER):
        opened.toggle("strip diacritics")
    assert "Hà" not in opened.text("#st-vi-tokens")
    opened.screenshot("stripped")
    with opened.changes(figure=EXPLORER):
        opened.toggle("strip diacritics")
    with opened.changes(figure=EXPLORER):
        opened.select("prefix", "none")
    with opened.changes(figure=EXPLORER):
        opened.fill("text", "Chị bán <b>phở</b> ở đầu ngõ nghỉ một hôm.")
    assert "<b>phở</b>" in opened.text("#st-vi-tokens").replace("\n", "").replace(" ", "")
    with opened.changes(figure=EXPLORER):
        opened.fill("text", "")
    assert "empty" in opened.text(".st-vi-notice")
    with opened.changes(figure=EXPLORER):
        opened.fill("text", "Trời mưa to. " * 90)
    assert "limit" in opened.text(".st-vi-notice")
    opened.screenshot("long")
    with opened.changes(figure=EXPLORER):
        opened.fill("text", "Trời mưa to ở Hà Nội.")
    opened.check_drawn()
    opened.theme("dark")
    opened.screenshot("dark")
