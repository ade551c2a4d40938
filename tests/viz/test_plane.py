from __future__ import annotations

import pytest

from st_vi.viz.plane import alignment_uniformity_plane


def test_uniformity_is_to_the_right_and_alignment_upwards():
    figure = alignment_uniformity_plane({"trước": (0.3, -1.0), "sau": (0.2, -2.5)}, [(1.0, -0.5), (0.5, -2.0)])
    path, end, models = figure.data
    assert path.x == (-0.5, -2.0) and path.y == (1.0, 0.5)
    assert end.x == (-2.0,) and end.y == (0.5,)
    assert models.text == ("trước", "sau") and models.x == (-1.0, -2.5) and models.y == (0.3, 0.2)
    assert "uniformity" in figure.layout.xaxis.title.text and "alignment" in figure.layout.yaxis.title.text


def test_a_path_alone_or_models_alone():
    assert alignment_uniformity_plane(path=[(1.0, -0.5)]).data[1].x == (-0.5,)
    assert alignment_uniformity_plane({"a": (1.0, -0.5)}).data[0].x == ()
    with pytest.raises(ValueError, match="a model or a path"):
        alignment_uniformity_plane()
