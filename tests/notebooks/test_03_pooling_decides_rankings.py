"""The rankings answer to every control, in the kernel and in the page."""

from __future__ import annotations

import pytest

from tests.notebooks.pictures import check_pictures

CHECKS = """
from st_vi.inspection.rankings import RetrievalSet

assert len(queries) == 195 and len(corpus) == 51 and rows["passage"][7] == corpus[relevant[7]]
assert not set("ơđạ").intersection("".join(variants["diacritics"].queries))
assert not explorer.notice.value
drawn = [len(trace.x) // 3 for trace in explorer.slopes.data]
assert sum(drawn[:3]) == 195 and drawn[1:3] == [len(explorer.flips.only_a), len(explorer.flips.only_b)]
assert drawn[1] and drawn[2], "no flips to look at"

# What it says above its figures.
assert flipped["lasttoken"] > 2 * flipped["mean, another seed"] and drawn[1] + drawn[2] == flipped["attention"]
assert recall["as written"].idxmax() in ("BM25", "TF-IDF") and recall["without diacritics"].idxmax() == "BM25"
assert recall.loc["TF-IDF", "without diacritics"] < 0.35 < 0.45 < recall.loc["mean", "without diacritics"]
assert recall.loc["mean", "as written"] > 0.8
by_hand = [cosines["mean"][query].argmax() == right for query, right in enumerate(relevant)]
assert abs(sum(by_hand) / len(by_hand) - recall.loc["mean", "as written"]) < 1e-9

before = list(explorer.bars.data[0].y)
explorer.k.value = 10
assert all(new >= old for new, old in zip(explorer.bars.data[0].y, before)) and list(explorer.bars.data[0].y) != before
explorer.only_flipped.value = True
assert len(explorer.query.options) == 1 + len(explorer.flips.only_a) + len(explorer.flips.only_b)
explorer.query.value = explorer.query.options[1][1]
assert 'id="st-vi-syllables"' in explorer.details.value
explorer.filter.value = "negation"
assert not explorer.notice.value
explorer.filter.value, explorer.only_flipped.value = "all", False  # as it was, for the next test
explorer.query.value, explorer.k.value = -1, 1
assert explorer.query.label == "all queries"
assert list(explorer.bars.data[0].y) == before

# A model of one's own: the pooling alone is exchanged.
others = {"its own": model, "mean": repooled(model, "mean"), "last token": repooled(model, "lasttoken")}
assert others["mean"][0] is model[0] and others["mean"][2] is model[2]
own = RankingExplorer(others, queries[:10], corpus, relevant[:10], prompt_name=prompt_name, show_progress_bar=False)
assert not own.notice.value and len(own.bars.data[0].y) == 3
"""


def test_what_it_computes(notebook):
    notebook.execute(CHECKS)
    check_pictures(notebook.content())


@pytest.mark.slow
def test_figures_are_drawn_as_they_are_held_and_fit(opened):
    opened.check_drawn()
    opened.check_boxes()


def test_in_the_browser(opened):
    opened.screenshot("all-queries")
    with opened.changes(figure=1):
        opened.slide("k", "ArrowRight", presses=3)
    with opened.changes(selector="#st-vi-flips"):
        opened.slide("margin", "ArrowRight", presses=2)
    with opened.changes(figure=0):
        opened.slide("margin", "Home")
    with opened.changes(figure=0):
        opened.select("pooling B", "lasttoken")
    with opened.changes(figure=0):
        opened.select("pooling B", "mean")
    for name in ("diacritics", "number", "negation", "all"):
        with opened.changes(figure=0):
            opened.select("filter", name)
    opened.toggle("only flipped queries")
    opened._settle()
    menu = opened._control(".widget-dropdown", "query").locator("option")
    with opened.changes(figure=0):
        opened.select("query", menu.nth(1).inner_text())
    with opened.changes(selector="#st-vi-syllables"):
        opened.select("query", menu.nth(2).inner_text())
    opened.screenshot("one-query")
    opened.check_drawn()
    opened.theme("dark")
    opened.screenshot("dark")
    with opened.changes(figure=0):
        opened.select("pooling B", "attention")
    assert "nothing to compare" in opened.text(".st-vi-notice")
    opened.screenshot("notice")
