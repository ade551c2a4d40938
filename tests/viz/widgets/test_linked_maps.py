from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from plotly.callbacks import Points

from st_vi.stock.figures import LiveFigure
from st_vi.viz.lasso import drawn_lines
from st_vi.viz.maps import SYMBOLS, looks_of
from st_vi.viz.projection import Projection
from st_vi.viz.tables import kept_share, legend, neighbour_table
from st_vi.viz.widgets.linked_maps import LinkedMaps

TEXTS = ["Trời mưa.", "Trời nắng.", "Hà Nội có <b>Hồ Gươm</b>.", "Tôi ăn phở.", "Mưa phùn."]
NEAR = {
    "before": np.array([[1, 4], [0, 2], [1, 3], [2, 4], [0, 1]]),
    "after": np.array([[4, 1], [2, 3], [0, 4], [4, 2], [2, 3]]),
}


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    return {"before": rng.normal(size=(5, 2)), "after": rng.normal(size=(5, 2))}


@pytest.fixture
def linked(points):
    return LinkedMaps(points, texts=TEXTS, labels=list("aabbc"), neighbours=NEAR)


def lasso(linked, figure, rows):
    """As the page reports it; a small box around each of the rows."""
    places = list(linked.projections.values())[figure].points[rows]
    boxes = [{"type": "rect", "x0": x - 1e-4, "x1": x + 1e-4, "y0": y - 1e-4, "y1": y + 1e-4} for x, y in places]
    linked.maps[figure].plotly_relayout({"selections": boxes})


def click(linked, figure, numbers):
    linked.maps[figure].data[0]._dispatch_on_click(Points(point_inds=numbers), None)


def drawn(trace):
    return np.stack([trace.x, trace.y], axis=1)


@pytest.mark.parametrize("figure", [0, 1])
def test_lasso_picks_in_both(linked, points, figure):
    lasso(linked, figure, [1, 3])
    assert list(linked.picked) == [1, 3]
    for shown, places in zip(linked.maps, points.values(), strict=True):
        np.testing.assert_array_equal(drawn(shown.data[1]), places[[1, 3]])
        assert list(shown.data[1].marker.color) == [shown.data[0].marker.color[row] for row in (1, 3)]
        assert not len(shown.data[2].x)


def test_lasso_lists_texts_with_kept_neighbours(linked):
    lasso(linked, 0, [0, 2, 3])
    assert "3 picked" in linked.table.value
    assert "Trời mưa. (100%)" in linked.table.value
    assert "Hà Nội có &lt;b&gt;Hồ Gươm&lt;/b&gt;. (0%)" in linked.table.value
    assert "Mưa phùn" not in linked.table.value
    assert f"{(1 + 0 + 1) / 3:.0%} are the same" in linked.table.value


def test_click_shows_neighbours_of_both_spaces_in_both_maps(linked, points):
    click(linked, 1, [3])
    for shown, places in zip(linked.maps, points.values(), strict=True):
        np.testing.assert_array_equal(drawn(shown.data[1]), places[[3]])
        np.testing.assert_array_equal(drawn(shown.data[2]), places[NEAR["before"][3]])
        np.testing.assert_array_equal(drawn(shown.data[3]), places[NEAR["after"][3]])
        assert [trace.name for trace in shown.data[2:4]] == ["nearest before", "nearest after"]
    assert "2 of 2 nearest neighbours are the same" in linked.table.value


def test_click_on_another_trace_changes_nothing(linked):
    click(linked, 0, [3])
    click(linked, 0, [])
    assert list(linked.picked) == [3]


def test_lasso_in_the_coordinates_of_the_map(linked, points):
    line = "M" + "L".join(f"{x},{y}" for x, y in [(-9, 9), (0, 9), (0, -9), (-9, -9)]) + "Z"
    linked.maps[1].plotly_relayout({"selections": [{"type": "path", "path": line}]})
    assert linked.picked.tolist() == np.flatnonzero(points["after"][:, 0] < 0).tolist()


def test_only_the_last_line_stays(linked):
    lasso(linked, 0, [1])
    lasso(linked, 1, [2, 3])
    assert [len(drawn_lines(shown)) for shown in linked.maps] == [0, 2]
    assert list(linked.picked) == [2, 3]
    linked.find.value = "mưa"
    assert [len(drawn_lines(shown)) for shown in linked.maps] == [0, 0]
    assert list(linked.picked) == [0, 4]


def test_points_that_are_gone_are_not_marked_any_more(linked, monkeypatch):
    """Plotly's own marks on the points in a lasso: WebGL would draw them from memory that is not theirs."""
    lasso(linked, 0, [0, 1, 2])
    sent = []
    monkeypatch.setattr(LiveFigure, "_send_update_msg", lambda self, **message: sent.append(message))
    linked.find.value = "nắng"
    second, first = (message["restyle_data"] for message in sent)
    assert first["selectedpoints"] == [None] * 4
    assert "selectedpoints" not in second  # nothing was marked in the other map


def test_let_go(linked):
    linked.find.value = "mưa"
    linked.release.click()
    assert (linked.find.value, len(linked.picked)) == ("", 0)
    assert all(not len(shown.data[1].x) for shown in linked.maps)
    assert "Draw a line around points" in linked.table.value


def test_empty_lasso(linked):
    lasso(linked, 0, [1])
    linked.maps[0].plotly_relayout({"selections": [{"type": "rect", "x0": 98, "x1": 99, "y0": 98, "y1": 99}]})
    assert not len(linked.picked)


@pytest.mark.parametrize("how", ["lasso", "click", "find"])
def test_all_others_fade_in_both_maps(linked, how):
    """The page itself dims nothing at a lasso: it would do so in one map."""
    whole = [trace.marker.opacity for shown in linked.maps for trace in shown.data[:1]]
    {"lasso": lambda: lasso(linked, 0, [1]), "click": lambda: click(linked, 1, [1])}.get(
        how, lambda: setattr(linked.find, "value", "nắng")
    )()
    assert list(linked.picked) == [1]
    for shown, before in zip(linked.maps, whole, strict=True):
        points, picked = shown.data[:2]
        assert points.marker.opacity < before / 2 and picked.marker.opacity is None
        for trace in shown.data[:4]:
            assert trace.selected.marker.opacity == trace.unselected.marker.opacity is not None
        assert points.selected.marker.opacity == points.marker.opacity
    linked.colour(list("aabbc"), ["a"])
    assert linked.maps[0].data[0].marker.opacity < whole[0] / 2
    linked.release.click()
    assert [shown.data[0].marker.opacity for shown in linked.maps] == whole


def test_find(linked):
    for text in ("MƯA", "mua", "phun"):
        linked.find.value = text  # with and without diacritics
        assert list(linked.picked) == ([0, 4] if text != "phun" else [4])
    linked.find.value = "không có"
    assert not len(linked.picked)
    assert "No text contains “không có”." in linked.notice.value
    linked.find.value = ""
    assert (linked.notice.value, len(linked.picked)) == ("", 0)


def test_sample_is_the_same_in_both(points):
    points = {name: np.random.default_rng(i).normal(size=(50, 2)) for i, name in enumerate(points)}
    linked = LinkedMaps(points, limit=10)
    assert [shown.layout.title.text for shown in linked.maps] == ["before (10 of 50 points)", "after (10 of 50 points)"]
    click(linked, 0, [7])
    for shown, places in zip(linked.maps, points.values(), strict=True):
        assert len(shown.data[0].x) == 10
        np.testing.assert_array_equal(drawn(shown.data[1])[0], places[linked.drawn[7]])


def test_place_moves_points_and_what_is_picked(linked, points):
    click(linked, 0, [2])
    linked.place({name: Projection(-places, "pca", "", ("PC 1", "PC 2")) for name, places in points.items()})
    for shown, places in zip(linked.maps, points.values(), strict=True):
        np.testing.assert_array_equal(drawn(shown.data[0]), -places)
        np.testing.assert_array_equal(drawn(shown.data[1]), -places[[2]])
        np.testing.assert_array_equal(drawn(shown.data[2]), -places[NEAR["before"][2]])
        assert shown.layout.xaxis.title.text == "PC 1"


def test_colour(linked):
    lasso(linked, 0, [0, 4])
    linked.colour(shares=[0, 0.25, 0.5, 0.75, 1])
    figure = linked.maps[0]
    assert list(figure.data[0].marker.color) == [0, 0.25, 0.5, 0.75, 1]
    assert list(figure.data[1].marker.color) == [0, 1]
    assert (figure.data[0].marker.showscale, linked.legend.value) == (True, "")
    linked.colour(list("aabbc"), shown=["b"])
    assert len(set(figure.data[0].marker.color)) == 2
    assert "b</span>" in linked.legend.value and "others" in linked.legend.value
    linked.colour()
    assert linked.legend.value == ""


def test_legend_says_what_is_drawn():
    text = legend(["<mưa>", "nắng"])
    for name, (colour, symbol) in looks_of(["<mưa>", "nắng"]).items():
        entry = text[text.index(f"color:{colour}") :]
        assert entry.index(SYMBOLS[symbol]) < entry.index(name.replace("<", "&lt;").replace(">", "&gt;"))
    assert legend(None) == ""


def test_other_neighbours(linked):
    click(linked, 0, [0])
    linked.set_neighbours({name: rows[:, :1] for name, rows in NEAR.items()})
    assert "0 of 1 nearest" in linked.table.value
    linked.set_neighbours({})
    assert "nearest" not in linked.table.value
    with pytest.raises(ValueError, match="neighbours must be of the maps"):
        linked.set_neighbours({"before": NEAR["before"]})


def test_table_marks_common_neighbours():
    table = neighbour_table(0, TEXTS, {"<before>": np.array([[2, 1]]), "after": np.array([[1, 3]])})
    assert table.count("<b>✓ Trời nắng.</b>") == 2
    assert table.count("✓") == 3  # and once in the line above
    assert "nearest &lt;before&gt;" in table
    assert "<b>Hồ Gươm</b>" not in table


@pytest.mark.parametrize(("row", "expected"), [(0, 1), (1, 0.5), (2, 0), (3, 1), (4, 0)])
def test_kept_share(row, expected):
    assert kept_share(row, NEAR) == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_and_equal_points(count):
    linked = LinkedMaps({"before": np.zeros((count, 2)), "after": np.zeros((count, 2))})
    click(linked, 0, [count - 1])
    assert f"row {count - 1}" in linked.table.value


def test_labels_of_pandas_are_counted_by_place():
    linked = LinkedMaps({"a": np.eye(2)}, labels=pd.Series(["x", "y"], index=[1, 0]))
    assert [text.split("[")[1] for text in linked.maps[0].data[0].text] == ["x]", "y]"]
    linked.colour(pd.Series(["x", "x"], index=[5, 6]))
    linked.pick([1])
    assert linked.maps[0].data[1].x == (0.0,) and "(N, 2)" not in linked.notice.value


def test_static_twin(linked):
    figure = linked._static()
    assert len(figure.data) == 2 + 3
    assert len(linked._repr_mimebundle_()["application/vnd.plotly.v1+json"]["data"]) == 2 + 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": {}}, "one to 3 maps, got 0"),
        ({"maps": {"before": np.eye(2), "after": np.zeros((3, 2))}}, "'after' has 3 rows, the first map has 2"),
        ({"texts": ["một"]}, "texts has 1 rows"),
        ({"labels": ["một"]}, "one of labels for each point"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=message):
        LinkedMaps(**{"maps": {"before": np.eye(2), "after": np.eye(2)}, **change})
