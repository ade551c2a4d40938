from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from st_vi.viz.maps import (
    LETTER,
    MOST_LABELS,
    SYMBOLS,
    looks_of,
    marker_style,
    sample_rows,
    scatter,
    side_by_side,
    with_colour_menu,
)
from st_vi.viz.projection import Projection, project


@pytest.fixture
def x():
    return torch.randn(30, 6, generator=torch.manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 0.5, 0.1]) + 7


@pytest.fixture
def umap(monkeypatch):
    """In place of umap-learn: keeps what it was asked, and answers with the first two dimensions."""
    calls = []

    class UMAP:
        def __init__(self, **parameters):
            self.parameters = parameters

        def fit_transform(self, rows):
            calls.append(self.parameters)
            return rows[:, :2]

    module = ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    return calls


class TestPCA:
    def test_is_the_eigenvectors_of_the_covariance(self, x):
        centred = x.double() - x.double().mean(0)
        values, vectors = torch.linalg.eigh(centred.T @ centred)
        expected = (centred @ vectors.flip(1)[:, :2]).numpy()
        points = project(x).points
        for axis in (0, 1):  # a direction has no sign
            sign = np.sign(points[0, axis] * expected[0, axis])
            np.testing.assert_allclose(points[:, axis], sign * expected[:, axis], atol=1e-4)
        shares = (values.flip(0) / values.sum())[:2]
        assert project(x).axes == (f"PC 1 ({100 * shares[0]:.0f} %)", f"PC 2 ({100 * shares[1]:.0f} %)")

    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
    @pytest.mark.parametrize("method", ["pca", "umap"])
    def test_few_points(self, x, count, method):
        projection = project(x[:count], method)
        assert projection.method == "pca"
        assert projection.points.shape == (count, 2)
        assert np.isfinite(projection.points).all()
        assert ("UMAP needs more than 15" in projection.notice) == (method == "umap")
        if count > 1:
            assert np.ptp(projection.points, axis=0)[0] > 0

    @pytest.mark.parametrize("method", ["pca", "umap"])
    def test_equal_points(self, method):
        projection = project(torch.ones(50, 4) / 3, method)
        assert (projection.points == 0).all()
        assert "All points are equal" in projection.notice

    def test_one_dimension(self):
        points = project(torch.arange(5.0)[:, None]).points
        np.testing.assert_allclose(sorted(points[:, 0]), [-2, -1, 0, 1, 2])
        assert (points[:, 1] == 0).all()

    def test_takes_arrays_and_half_precision(self, x):
        np.testing.assert_allclose(project(x.numpy()).points, project(x).points)
        assert np.isfinite(project(x.bfloat16().requires_grad_()).points).all()

    @pytest.mark.parametrize("wrong", [torch.zeros(0, 4), torch.zeros(4), torch.zeros(2, 2, 2), torch.zeros(3, 0)])
    def test_wrong_shape(self, wrong):
        with pytest.raises(ValueError, match="shape"):
            project(wrong)

    def test_not_a_number(self, x):
        x[4, 2], x[9, 0] = torch.nan, torch.inf
        with pytest.raises(ValueError, match="2 rows hold NaN or infinite values, the first of them is row 4"):
            project(x)

    def test_unknown_method(self, x):
        with pytest.raises(ValueError, match="tsne"):
            project(x, "tsne")


class TestUMAP:
    """With a stand-in: the real one takes twenty seconds to compile, and is seen in the test of notebook 04."""

    def test_parameters(self, x, umap):
        project(x, "umap", seed=3, n_neighbors=5, min_dist=0.3)
        asked = {"metric": "cosine", "random_state": 3, "n_neighbors": 5, "min_dist": 0.3}
        assert asked.items() <= umap[0].items()

    def test_is_fitted_once(self, x, umap, tmp_path):
        first = project(x, "umap", cache=tmp_path / "new")
        again = project(x.clone(), "umap", cache=tmp_path / "new")
        assert len(umap) == 1
        np.testing.assert_array_equal(first.points, again.points)
        assert len(list((tmp_path / "new").iterdir())) == 1

    @pytest.mark.parametrize("change", [{"seed": 1}, {"n_neighbors": 7}, {"min_dist": 0.2}])
    def test_is_fitted_again_for_other_parameters(self, x, umap, tmp_path, change):
        project(x, "umap", cache=tmp_path)
        project(x, "umap", cache=tmp_path, **change)
        project(x + torch.eye(30, 6), "umap", cache=tmp_path)
        assert len(umap) == 3

    def test_damaged_file(self, x, umap, tmp_path):
        expected = project(x, "umap", cache=tmp_path).points
        (file,) = tmp_path.iterdir()
        file.write_bytes(file.read_bytes()[:50])
        np.testing.assert_array_equal(project(x, "umap", cache=tmp_path).points, expected)
        project(x, "umap", cache=tmp_path)
        assert len(umap) == 2

    def test_folder_that_cannot_be_written(self, x, umap, tmp_path, caplog):
        (tmp_path / "file").write_text("")
        assert project(x, "umap", cache=tmp_path / "file").method == "umap"
        assert "could not be kept" in caplog.text

    def test_not_installed(self, x, monkeypatch):
        monkeypatch.setitem(sys.modules, "umap", None)
        projection = project(x, "umap")
        assert projection.method == "pca"
        assert 'pip install "st-vi[notebooks]"' in projection.notice


class TestScatter:
    def test_every_row_in_its_place(self, x):
        points = project(x).points
        trace = scatter(points).data[0]
        np.testing.assert_array_equal(np.stack([trace.x, trace.y], axis=1), points)

    def test_labels_have_a_colour_and_a_symbol_each(self):
        labels = [f"chủ đề {i}" for i in range(MOST_LABELS)]
        figure = scatter(np.zeros((MOST_LABELS, 2)), labels=labels)
        marker = figure.data[0].marker
        assert len(set(zip(marker.color, marker.symbol, strict=True))) == MOST_LABELS
        assert len(set(marker.symbol[: len(SYMBOLS)])) == len(SYMBOLS)
        assert [trace.name for trace in figure.data[1:]] == labels
        assert [(trace.marker.color, trace.marker.symbol) for trace in figure.data[1:]] == [
            (marker.color[i], marker.symbol[i]) for i in range(MOST_LABELS)
        ]

    def test_rare_labels_are_grey(self):
        labels = ["hiếm", *[str(i // 2) for i in range(40)]]
        figure = scatter(np.zeros((41, 2)), labels=labels)
        assert "hiếm" not in looks_of(labels)
        assert figure.data[-1].name == "others"
        assert figure.data[0].marker.color[0] == figure.data[-1].marker.color
        assert len(figure.data) == 1 + MOST_LABELS + 1
        assert figure.layout.legend.entrywidth == LETTER * len("others") + 8  # as many columns as there is room for

    def test_only_some_labels(self):
        figure = scatter(np.zeros((3, 2)), labels=["a", "b", "a"], shown=["b"])
        assert [trace.name for trace in figure.data] == ["points", "b", "others"]
        colours = figure.data[0].marker.color
        assert colours[0] == colours[2] != colours[1]

    def test_shares_are_colours(self):
        marker = scatter(np.zeros((3, 2)), labels=list("abc"), shares=[0, 0.5, 0.25]).data[0].marker
        assert (list(marker.color), marker.cmin, marker.cmax) == ([0, 0.5, 0.25], 0, 0.5)

    def test_texts_are_no_markup(self):
        text = "<img src=x onerror=alert(1)> & 'nháy' \"kép\""
        shown = scatter(np.zeros((1, 2)), labels=["<b>"], texts=[text]).data[0].text[0]
        assert shown == "&lt;img src=x onerror=alert(1)&gt; &amp; 'nháy' \"kép\"<br>[&lt;b&gt;]"

    def test_long_texts_are_wrapped_and_cut(self):
        shown = scatter(np.zeros((1, 2)), texts=["Trời mưa rất to ở Hà Nội. " * 100]).data[0].text[0]
        assert max(map(len, shown.split("<br>"))) <= 60
        assert len(shown) < 340
        assert shown.endswith("…")

    def test_sample_above_the_limit(self):
        points = np.arange(200).reshape(100, 2)
        figure = scatter(points, labels=[str(i) for i in range(100)], title="Bản đồ", limit=10)
        rows = figure.data[0].x // 2
        assert len(set(rows)) == 10
        assert figure.layout.title.text == "Bản đồ (10 of 100 points)"
        assert list(figure.data[0].text) == [f"[{row}]" for row in rows]
        np.testing.assert_array_equal(rows, sample_rows(100, 10))

    @pytest.mark.parametrize("column", ["labels", "texts", "shares"])
    def test_another_length(self, column):
        with pytest.raises(ValueError, match=f"one of {column} for each point, got 2 for 3"):
            scatter(np.zeros((3, 2)), **{column: [1, 2]})

    @pytest.mark.parametrize("count", [1, 2, 5])
    def test_few_points(self, count):
        assert len(scatter(project(torch.randn(count, 3)), labels=["a"] * count).data[0].x) == count


def test_what_is_no_map():
    with pytest.raises(ValueError, match=r"shape \(N, 2\), got \(3, 8\)"):
        scatter(torch.ones(3, 8))
    with pytest.raises(ValueError, match="NaN or infinite"):
        scatter(np.array([[0.0, np.nan]]))
    with pytest.raises(ValueError, match="limit must be a whole number"):
        scatter(np.zeros((3, 2)), limit=1.5)


def test_columns_of_pandas_are_counted_by_place():
    labels = pd.Series(["a", "b", "c"], index=[2, 0, 1])
    figure = scatter(torch.zeros(3, 2, requires_grad=True), labels=labels, texts=labels)
    assert figure.data[0].text == ("a<br>[a]", "b<br>[b]", "c<br>[c]")
    assert looks_of(["others", *"abcdefghij"]).keys() >= {"others", "all others"}


def test_the_same_up_to_rounding_is_no_cloud():
    rows = torch.full((40, 384), 0.05) + 1e-9 * torch.randn(40, 384, generator=torch.manual_seed(0))
    for method in ("pca", "umap"):
        found = project(rows, method)
        assert not found.points.any() and "All points are equal." in found.notice


def test_vectors_in_any_container():
    rows = torch.randn(5, 3, generator=torch.manual_seed(0))
    expected = project(rows).points
    for given in (list(rows), list(rows.numpy()), rows.tolist(), pd.DataFrame(rows.numpy()), rows.requires_grad_()):
        np.testing.assert_allclose(project(given).points, expected, atol=1e-6)


class TestSideBySide:
    def test_a_button_is_the_whole_state(self):
        states = {
            method: {name: Projection(np.random.default_rng(seed + n).normal(size=(4, 2)), "pca", "", axes)
                     for n, name in enumerate(("before", "after"))}
            for seed, method, axes in [(0, "PCA", ("PC 1", "PC 2")), (10, "UMAP", ("", ""))]
        }  # fmt: skip
        figure = side_by_side(states, labels=list("aabb"), texts=list("wxyz"))
        for button, state in zip(figure.layout.updatemenus[0].buttons, states.values(), strict=True):
            data, layout, traces = button.args
            assert list(traces) == [0, 1]
            for number, projection in enumerate(state.values()):
                np.testing.assert_allclose(data["x"][number], projection.points[:, 0], atol=1e-4)
                np.testing.assert_allclose(data["y"][number], projection.points[:, 1], atol=1e-4)
                assert layout[f"xaxis{number + 1 if number else ''}.title.text"] == projection.axes[0]
        np.testing.assert_array_equal(figure.data[1].x, states["PCA"]["after"].points[:, 0])
        assert figure.layout.xaxis2.title.text == "PC 1"

    def test_a_menu_of_colours(self):
        states = {"PCA": {"before": Projection(np.eye(2)), "after": Projection(-np.eye(2))}}
        figure = side_by_side(states, labels=["a", "b"])
        looks = {"labels": marker_style(np.arange(2), ["a", "b"]), "shares": marker_style(np.arange(2), shares=[0, 1])}
        (menu,) = with_colour_menu(figure, looks).layout.updatemenus
        first, second = (button.args for button in menu.buttons)
        assert first[0]["marker.color"] == [list(figure.data[0].marker.color)] * 2 and first[1] == {
            "legend.visible": True
        }
        assert second[0]["marker.color"] == [[0, 1]] * 2 and second[0]["marker.showscale"] == [False, True]
        assert [list(args[2]) for args in (first, second)] == [[0, 1]] * 2 and second[1] == {"legend.visible": False}

    def test_no_buttons_for_one_state(self):
        assert not side_by_side({"PCA": {"before": Projection(np.eye(2))}}).layout.updatemenus
