from __future__ import annotations

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from st_vi.viz.widgets.geometry_explorer import GeometryExplorer, random_pairs

LABELS = ["mưa"] * 12 + ["nắng"] * 8 + ["gió"] * 4
TEXTS = [f"Câu số {i} <i>về trời {label}</i>." for i, label in enumerate(LABELS)]
SIDES = ["text"] * 14 + ["image"] * 10


@pytest.fixture
def spaces():
    before = torch.randn(24, 6, generator=torch.manual_seed(0))
    return before, before @ torch.randn(6, 4, generator=torch.manual_seed(1))


@pytest.fixture
def fitted(monkeypatch):
    """A UMAP that only counts how often it is fitted, and turns the first two dimensions around."""
    fitted = []

    class UMAP:
        def __init__(self, **parameters):
            pass

        def fit_transform(self, rows):
            fitted.append(rows)
            return -rows[:, :2]

    module = ModuleType("umap")
    module.UMAP = UMAP
    monkeypatch.setitem(sys.modules, "umap", module)
    return fitted


@pytest.fixture
def explorer(spaces, fitted):
    return GeometryExplorer(*spaces, TEXTS, LABELS, modality=SIDES)


def naive_overlap(before, after, k):
    """With loops, in float64, over all other rows."""

    def near(x, i):
        cosine = [
            float(x[i] @ x[j] / np.linalg.norm(x[i]) / np.linalg.norm(x[j])) if i != j else -np.inf
            for j in range(len(x))
        ]
        return set(sorted(range(len(x)), key=lambda j: -cosine[j])[:k])

    before, after = before.double().numpy(), after.double().numpy()
    return [len(near(before, i) & near(after, i)) / k for i in range(len(before))]


def numbers(explorer, name):
    """The cells of a row of the table."""
    row = re.search(rf"<tr><th[^>]*>{name}</th>(.*?)</tr>", explorer.summary.value).group(1)
    return re.findall(r"<td[^>]*>(-?[\d.]+)</td>", row)


@pytest.mark.parametrize("k", [1, 4, 23])
def test_neighbours_slider(explorer, spaces, k):
    explorer.k.value = k
    expected = naive_overlap(*spaces, k)
    np.testing.assert_allclose(explorer.overlap, expected, atol=1e-6)
    assert numbers(explorer, "kept neighbours") == [f"{np.mean(expected):.2f}"]
    assert f"by chance {k / 23:.2g}" in explorer.summary.value
    explorer.linked.pick([5])
    assert f"{round(expected[5] * k)} of {k} nearest neighbours" in explorer.linked.table.value


def test_figures_of_the_table(explorer, spaces):
    for column, x in enumerate(spaces):
        unit = torch.nn.functional.normalize(x.double(), dim=1)
        off = ~torch.eye(24, dtype=torch.bool)
        assert numbers(explorer, "mean cosine")[column] == f"{(unit @ unit.T)[off].mean():.2f}"
        squares = torch.cdist(unit, unit)[off].square()
        assert numbers(explorer, "uniformity")[column] == f"{(-2 * squares).exp().mean().log():.2f}"
        gap = (unit[:14].mean(0) - unit[14:].mean(0)).norm()
        assert numbers(explorer, "gap text – image")[column] == f"{gap:.2f}"


def test_no_gap_without_modality(spaces):
    assert "gap" not in GeometryExplorer(*spaces, methods=("pca",)).summary.value


def test_method(explorer, spaces):
    figure = explorer.linked.maps[1]
    before = list(figure.data[0].x)
    assert "largest variance" in explorer.caution.value
    explorer.method.value = "umap"
    np.testing.assert_allclose(figure.data[0].x, -spaces[1][:, 0], rtol=1e-6)
    assert "mean nothing" in explorer.caution.value
    assert figure.layout.xaxis.showticklabels is False
    explorer.method.value = "pca"
    assert list(figure.data[0].x) == before


def test_no_control_fits_umap(explorer, fitted):
    assert len(fitted) == 2
    for method in ("umap", "pca", "umap"):
        explorer.method.value = method
    explorer.k.value = 3
    explorer.colour.value = "overlap"
    explorer.shown.value = ("gió",)
    assert len(fitted) == 2


def test_cache(spaces, fitted, tmp_path):
    GeometryExplorer(*spaces, cache=tmp_path)
    GeometryExplorer(*spaces, cache=tmp_path)
    assert len(fitted) == 2


def test_colour_by_overlap_follows_the_slider(explorer):
    marker = explorer.linked.maps[0].data[0].marker
    explorer.colour.value = "overlap"
    for k in (2, 9):
        explorer.k.value = k
        np.testing.assert_allclose(marker.color, explorer.overlap)


def test_colour_by_modality(explorer):
    explorer.colour.value = "modality"
    colours = explorer.linked.maps[0].data[0].marker.color
    assert [colour == colours[0] for colour in colours] == [side == "text" for side in SIDES]
    assert "text" in explorer.linked.legend.value
    assert explorer.shown.disabled


def test_without_labels_the_modality_is_in_colour(spaces):
    explorer = GeometryExplorer(*spaces, modality=SIDES, methods=("pca",))
    figure = explorer._twin()
    assert explorer.colour.value == figure.layout.updatemenus[0].buttons[0].label == "modality"
    for points in (explorer.linked.maps[0].data[0], figure.data[0]):
        assert [colour == points.marker.color[0] for colour in points.marker.color] == [
            side == "text" for side in SIDES
        ]
    assert "text" in explorer.linked.legend.value
    assert [trace.name for trace in figure.data[2:]] == ["text", "image"]


def test_labels_in_colour(explorer):
    assert list(explorer.shown.options) == ["mưa", "nắng", "gió"]  # the most frequent first
    explorer.shown.value = ("nắng",)
    marker = explorer.linked.maps[1].data[0].marker
    grey, coloured = marker.color[0], marker.color[12]
    assert grey != coloured
    assert [colour == coloured for colour in marker.color] == [label == "nắng" for label in LABELS]
    explorer.shown.value = ()
    assert set(explorer.linked.maps[1].data[0].marker.color) == {grey}


def test_pairs(spaces):
    explorer = GeometryExplorer(*spaces, pairs={"suy ra": [(0, 1), (2, 3)], "trống": []}, methods=("pca",))
    assert len(explorer.similarities) == 2
    for figure, x in zip(explorer.similarities, spaces, strict=True):
        cosine = torch.cosine_similarity(x[[0, 2]], x[[1, 3]]).mean()
        assert [trace.name.split(":")[0] for trace in figure.data] == ["suy ra", "random"]
        assert figure.data[0].name == f"suy ra: mean {cosine:.2f}, 2 pairs"


def test_pairs_by_label(explorer):
    names = [trace.name.split(":")[0] for trace in explorer.similarities[0].data]
    assert names == ["same label", "other label", "random"]
    counts = [
        int(re.search(r"([\d,]+) pairs", trace.name)[1].replace(",", "")) for trace in explorer.similarities[0].data
    ]
    assert counts[0] + counts[1] == counts[2] == 2000


def test_random_pairs_are_of_different_rows():
    pairs = random_pairs(3, 600, seed=0)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert torch.bincount(pairs[:, 0] * 3 + pairs[:, 1], minlength=9)[[1, 2, 3, 5, 6, 7]].min() > 60
    assert torch.equal(pairs, random_pairs(3, 600, seed=0))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_few_points(spaces, count):
    explorer = GeometryExplorer(*(x[:count] for x in spaces), TEXTS[:count], LABELS[:count])
    assert not explorer.notice.value
    assert explorer.k.disabled == (count == 1)
    explorer.method.value = "umap"
    assert f"UMAP needs more than 15 different points, got {count}" in explorer.caution.value
    assert "mean nothing" not in explorer.caution.value  # no UMAP is shown
    explorer.linked.pick([0])
    assert "Câu số 0" in explorer.linked.table.value


def test_equal_points(fitted):
    explorer = GeometryExplorer(torch.full((30, 4), 1 / 3), torch.randn(30, 4), labels=["a"] * 30)
    assert "before: All points are equal." in explorer.caution.value
    assert explorer.spectrum.data[0].name == "before: effective rank 0.0"
    assert numbers(explorer, "uniformity")[0] == "0.00"
    assert not explorer.notice.value


def test_umap_is_not_installed(spaces, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    explorer = GeometryExplorer(*spaces)
    explorer.method.value = "umap"
    assert "pip install" in explorer.caution.value
    explorer.k.value = 3
    assert "pip install" in explorer.caution.value


def test_static_twin(explorer):
    figure = explorer._static()
    assert [button.label for button in figure.layout.updatemenus[0].buttons] == ["PCA", "UMAP"]
    assert [annotation.text for annotation in figure.layout.annotations] == ["before", "after"]
    assert "&lt;i&gt;" in figure.data[0].text[0]
    _, modality, overlap = figure.layout.updatemenus[1].buttons
    legends = {name: [trace.name for trace in figure.data if trace.legend == name] for name in ("legend2", None)}
    assert legends == {"legend2": ["text", "image"], None: ["points", "points", "mưa", "nắng", "gió"]}
    assert not figure.layout.legend2.visible and modality.args[1] == {"legend.visible": False, "legend2.visible": True}
    assert overlap.args[1] == {"legend.visible": False, "legend2.visible": False}
    assert overlap.label == "overlap" and overlap.args[0]["marker.color"] == [explorer.overlap.tolist()] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": torch.zeros(23, 4)}, "after has 23 rows, but before has 24"),
        ({"texts": TEXTS[:3]}, "texts has 3 rows"),
        ({"labels": LABELS[:3]}, "labels has 3 rows"),
        ({"modality": SIDES[:3]}, "modality has 3 rows"),
        ({"pairs": {"suy ra": [(0, 24)]}}, "'suy ra' name rows from 0 to 24; there are 24"),
        ({"after": torch.full((24, 4), torch.nan)}, "after: 24 rows hold NaN"),
        ({"before": torch.zeros(0, 4)}, "before must have the shape"),
        ({"names": ("a", "a")}, "names must differ"),
        ({"methods": ()}, "there must be a method"),
    ],
)
def test_bad_input(spaces, change, message):
    columns = {"before": spaces[0], "after": spaces[1], "texts": TEXTS, "labels": LABELS, "methods": ("pca",)}
    with pytest.raises(ValueError, match=message):
        GeometryExplorer(**{**columns, **change})
