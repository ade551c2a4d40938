"""Charts and folds of the page of benchmarks: dots are the numbers of the tables, and folded parts can be reached."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.docs.conftest import DOCS, ROOT
from tests.docs.site import opened

OUTSIDE = """svg => [...svg.querySelectorAll("text, circle")].map(one => one.getBBox()).filter(
  box => box.x < 0 || box.x + box.width > 760).length"""
TABLE = """| model | a | b |
|---|---|---|
| `one` | 1.0 ± 0.5 | **30** |
| two | 2 × | |
| three | −3.5 | 1,000 M |
"""
DOT = re.compile(r'<circle class="s(\d)" cx="([\d.]+)" cy="([\d.]+)" r="4"><title>([^<]*)</title></circle>')


@pytest.fixture
def charts(monkeypatch):
    pytest.importorskip("markdown", reason='pip install "st-vi[docs]"')
    monkeypatch.syspath_prepend(ROOT / "docs" / "_site")
    return importlib.import_module("charts")


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("12", (12, 0)),
        ("−3.5 ± 1", (-3.5, 1)),
        ("+.5", (0.5, 0)),
        ("x5", None),
        ("≤ 5", None),
        ("(5)", None),
        ("", None),
    ],
)
def test_a_cell_is_a_number_only_if_it_begins_with_one(charts, cell, found):
    assert charts.number(cell) == found


def test_each_number_has_a_dot_at_its_place(charts):
    drawn = charts.with_charts(f"<!-- chart: a | b -->\n\n{TABLE}")
    dots = DOT.findall(drawn)
    assert [told for *_, told in dots] == [
        "one, a: 1.0 ± 0.5",
        "two, a: 2 ×",
        "three, a: −3.5",
        "one, b: 30",
        "three, b: 1,000 M",
    ]
    one, two, three = (float(x) for _, x, *_ in dots[:3])
    assert (two - one) / (one - three) == pytest.approx(1 / 4.5, abs=0.01)
    assert len({y for *_, y, _ in dots}) == 3 and drawn.endswith(TABLE)
    assert drawn.count('<path class="s0"') == 1 and 'class="first"' not in drawn


def test_the_first_row_as_a_line(charts):
    drawn = charts.with_charts(f"<!-- chart against the first row: a -->\n\n{TABLE}")
    line, dot = re.search(r'class="first" d="M([\d.]+)', drawn)[1], DOT.search(drawn)[2]
    assert line == dot


def test_equal_ratios_are_equal_distances_on_a_log_scale(charts):
    table = "| rows | ms |\n|---|---|\n| one | 0.2 |\n| two | 2 |\n| three | over |\n| four | 200 |\n"
    one, two, four = (
        float(x) for _, x, *_ in DOT.findall(charts.with_charts(f"<!-- chart on a log scale: ms -->\n\n{table}"))
    )
    assert two - one == pytest.approx((four - two) / 2, abs=0.1)
    with pytest.raises(ValueError):
        charts.with_charts(f"<!-- chart on a log scale: a -->\n\n{TABLE}")


@pytest.mark.parametrize("asked", ["c", "model", "a | c"])
def test_a_column_without_numbers_is_an_error(asked, charts):
    with pytest.raises(charts.NoSuchFigure):
        charts.with_charts(f"<!-- chart: {asked} -->\n\n{TABLE}")
    with pytest.raises(charts.NoSuchFigure, match="no table"):
        charts.with_charts("<!-- chart: a -->\n\nText.\n")


def test_all_charts_of_the_page_show_their_tables(charts):
    page = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    drawn = charts.with_charts(page)
    assert drawn.count("<svg") == page.count("<!-- chart") >= 10
    told = [one.rsplit(": ", 1)[1] for *_, one in DOT.findall(drawn)]
    assert len(told) > 100 and all(re.search(rf"\| (\*\*)?{re.escape(one)}(\*\*)? \|", page) for one in told)


@pytest.mark.slow
def test_summary_fits_a_screen_and_links_open_what_is_folded(site, reader):
    wrong: list[str] = []
    with opened(reader, f"{site.root}benchmarks/", site.root, wrong, width=1400) as page:
        summary, folds = page.locator(".st-vi-summary"), page.locator(".st-vi-fold")
        assert summary.bounding_box()["height"] < 800 and "{" not in summary.inner_text()
        assert folds.count() == len(
            re.findall(r"^## ", (DOCS / "benchmarks.md").read_text(encoding="utf-8"), re.MULTILINE)
        )
        assert not page.locator(".st-vi-fold[open]").count()
        page.locator(".st-vi-summary a").first.click()
        page.locator(".st-vi-fold[open] .st-vi-chart svg").first.wait_for()
        chart = page.locator(".st-vi-fold[open] .st-vi-chart svg").first
        assert chart.evaluate(OUTSIDE) == 0
    assert not wrong
