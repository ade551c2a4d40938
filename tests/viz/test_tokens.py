"""The drawn text and bars against the units they are made of."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from st_vi.inspection.attention import Unit
from st_vi.viz.tokens import KIND_COLOURS, drift_table, highlight, temperature_bars, weight_bars

UNITS = [
    Unit("<s>", "special", (0,), (0, 0), 0.05),
    Unit("câu:", "prefix", (1, 2), (0, 4), 0.15),
    Unit('<b>"Hà"</b>', "text", (3,), (5, 14), 0.5),
    Unit("Nội", "text", (4,), (14, 18), 0.0),
    Unit("Nội", "text", (5,), (18, 22), 0.3),
]


class Elements(HTMLParser):
    """The attributes and the text of every element that holds nothing but text."""

    def __init__(self, html):
        super().__init__()
        self.found, self._open = [], None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self._open = (tag, dict(attributes))

    def handle_data(self, data):
        if self._open and data.strip():
            self.found.append((*self._open, data))
            self._open = None


def spans(html):
    return [
        (attributes, text) for tag, attributes, text in Elements(html).found if tag == "span" and "title" in attributes
    ]


def luminance(colour):
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(style):
    background = tuple(map(int, re.search(r"background:rgb\((\d+),(\d+),(\d+)\)", style).groups()))
    ink = tuple(bytes.fromhex(re.search(r";color:#(\w{6})", style).group(1)))
    light, dark = sorted([luminance(background), luminance(ink)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_highlight():
    html = highlight(UNITS, deleted=UNITS[4])
    assert html.count('id="st-vi-tokens"') == 1 and "<b>" not in html
    drawn = spans(html)
    assert [text for _, text in drawn] == [unit.text for unit in UNITS]
    for (attributes, _), unit in zip(drawn, UNITS, strict=True):
        assert f"{unit.weight:.4f}" in attributes["title"]
        assert (unit.kind in attributes["title"]) == (unit.kind != "text")
        assert ("line-through" in attributes["style"]) == (unit is UNITS[4])
    borders = [re.search("border:2px solid ([^;]+)", attributes["style"]).group(1) for attributes, _ in drawn]
    assert len(set(borders)) == 3 and borders[2:] == ["transparent"] * 3


def test_every_colour_is_legible_and_brighter_with_the_weight():
    units = [Unit("mưa", "text", (i,), (i, i), i / 100) for i in range(101)]
    styles = [attributes["style"] for attributes, _ in spans(highlight(units))]
    assert min(map(contrast, styles)) >= 4.5  # WCAG's AA
    found = [re.search(r"rgb\((\d+),(\d+),(\d+)\)", style).groups() for style in styles]
    lights = [luminance(tuple(map(int, colour))) for colour in found]
    assert lights == sorted(lights) and len(set(found)) > 90


def test_without_weights():
    assert spans(highlight([])) == []
    ((attributes, text),) = spans(highlight([Unit("</s>", "special", (0,), (0, 0), 0.0)]))
    assert text == "</s>" and contrast(attributes["style"]) > 4.5
    assert weight_bars([]).data[0].y == ()


def test_bars():
    figure = weight_bars(UNITS, "Bars")
    bars = figure.data[0]
    assert list(bars.y) == [unit.weight for unit in UNITS]
    assert list(bars.x) == list(figure.layout.xaxis.labelalias) == list("01234")  # equal syllables stay apart
    assert figure.layout.xaxis.labelalias["2"] == '&lt;b&gt;"Hà"&lt;/b&gt;'
    assert list(bars.marker.color) == [KIND_COLOURS[unit.kind] for unit in UNITS]
    assert [trace.name for trace in figure.data[1:]] == list(KIND_COLOURS)
    assert figure.layout.title.text == "Bars"


def test_temperatures():
    sharp = [Unit(unit.text, unit.kind, unit.tokens, unit.span, float(unit.weight == 0.5)) for unit in UNITS]
    figure = temperature_bars({0.1: sharp, 1.0: UNITS})
    (slider,) = figure.layout.sliders
    assert list(figure.data[0].y) == [unit.weight for unit in UNITS] and slider.active == 1
    assert [step.label for step in slider.steps] == ["0.1", "1"]
    changes, traces = slider.steps[0].args
    assert slider.steps[0].method == "restyle" and list(traces) == [0]
    assert list(changes["y"][0]) == [0, 0, 1, 0, 0]
    with pytest.raises(KeyError):
        temperature_bars({1.0: UNITS}, start=2.0)


def test_table_is_sorted_by_weight():
    html = drift_table(UNITS[2:], [0.1, 0.2, 0.3], [0.01, 0.02, 0.03])
    cells = [text for tag, _, text in Elements(html).found if tag == "td"]
    assert cells[:4] == ['<b>"Hà"</b>', "0.500", "0.100", "0.010"]
    assert cells[4:] == ["Nội", "0.300", "0.300", "0.030", "Nội", "0.000", "0.200", "0.020"]
    assert "<b>" not in html and 'id="st-vi-drift"' in html
