"""The drawn lines are at their ranks, in their groups; the bars and whiskers are the estimates."""

from __future__ import annotations

import numpy as np
import pytest

from st_vi.inspection.rankings import Estimate
from st_vi.viz.ranks import GREY, rank_slopes, rank_slopes_by_pair, recall_bars
from st_vi.viz.theme import COLOURS

LABELS = [f'Câu hỏi số {i} <b> "' for i in range(6)]
RANKS = {"attention": [1, 1, 4, 9, 1, 2], "mean": [1, 6, 2, 9, 1, 3], "lasttoken": [8, 1, 1, 1, 1, 1]}


def lines(trace, columns):
    """Heights by label."""
    y, texts = list(trace.y), [told[0] for told in trace.customdata]
    step = columns + 1
    assert all(y[i] is None or np.isnan(y[i]) for i in range(columns, len(y), step))
    return {texts[i]: y[i : i + columns] for i in range(0, len(y), step)}


def test_lines_are_at_their_ranks():
    figure = rank_slopes(RANKS, LABELS, k=3)
    drawn = {label: heights for trace in figure.data for label, heights in lines(trace, 3).items()}
    assert len(drawn) == 6 and all('&lt;b&gt; "' in label for label in drawn)
    for row, label in enumerate(LABELS):
        heights = drawn[label.replace("<b>", "&lt;b&gt;")]
        assert [round(height) for height in heights] == [ranks[row] for ranks in RANKS.values()]
    firsts = [heights[0] for heights in drawn.values() if round(heights[0]) == 1]
    assert len({*firsts}) == 3  # side by side
    axis = figure.layout.yaxis
    assert axis.type == "log" and axis.range[0] > np.log10(9) and axis.range[1] < 0  # 1 is on top
    assert figure.layout.shapes[0].y0 == 3.5 and list(figure.layout.xaxis.ticktext) == list(RANKS)


def test_flipped_lines_are_coloured():
    figure = rank_slopes(RANKS, LABELS, k=3)
    assert [trace.name for trace in figure.data] == ["others (2)", "flipped (4)"]
    assert figure.data[0].line.color == GREY and figure.data[1].line.color == COLOURS[0]
    assert {label[11] for label in lines(figure.data[1], 3)} == {"0", "1", "2", "3"}
    grouped = rank_slopes(RANKS, LABELS, groups={"a": [5], "b": []}, others="rest")
    assert [trace.name for trace in grouped.data] == ["rest (5)", "a (1)", "b (0)"]
    assert [trace.name for trace in rank_slopes(RANKS, LABELS).data] == ["others (6)", "flipped (0)"]


def test_bad_ranks():
    with pytest.raises(ValueError, match="6 rows that have a label"):
        rank_slopes({"mean": [1, 2]}, LABELS)
    with pytest.raises(ValueError, match="begin at 1"):
        rank_slopes({"mean": [0]}, ["a"])
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        rank_slopes(RANKS, LABELS, k=0)
    with pytest.raises(ValueError, match="groups name the row 9 of 6"):
        rank_slopes(RANKS, LABELS, groups={"a": [0, 9]})
    with pytest.raises(ValueError, match="two poolings"):
        rank_slopes_by_pair({"mean": [1]}, ["a"], 1)


def test_a_button_shows_one_pair():
    figure = rank_slopes_by_pair(RANKS, LABELS, k=3)
    buttons = figure.layout.updatemenus[0].buttons
    assert len(buttons) == 3 and len(figure.data) == 9
    for pair, button in enumerate(buttons):
        shown = [trace for trace, visible in zip(figure.data, button.args[0]["visible"], strict=True) if visible]
        a, b = button.args[1]["xaxis.ticktext"]
        only_a = [i for i in range(6) if RANKS[a][i] <= 3 < RANKS[b][i]]
        only_b = [i for i in range(6) if RANKS[b][i] <= 3 < RANKS[a][i]]
        expected = [6 - len(only_a) - len(only_b), len(only_a), len(only_b)]
        assert [len(trace.x) // 3 for trace in shown] == expected
        assert [trace.visible for trace in shown] == [pair == 0] * 3
    assert figure.layout.yaxis.range[0] > np.log10(9)


def test_bars_and_whiskers():
    recalls = {"attention": Estimate(0.5, 0.3, 0.6), "mean": Estimate(0.2, float("nan"), float("nan"))}
    bars = recall_bars(recalls, k=5, chance=0.05, colours=["#111111", "#222222"])
    trace = bars.data[0]
    assert list(trace.x) == ["attention", "mean"] and list(trace.y) == [0.5, 0.2]
    assert trace.error_y.array[0] == pytest.approx(0.1) and trace.error_y.arrayminus[0] == pytest.approx(0.2)
    assert list(trace.marker.color) == ["#111111", "#222222"] and bars.layout.shapes[0].y0 == 0.05
    assert "recall@5" in bars.layout.title.text and tuple(bars.layout.yaxis.range) == (0, 1)
