from __future__ import annotations

import plotly.graph_objects as go
import pytest
import torch
import torch.nn.functional as F

from st_vi.viz.sphere import ALONE, sphere_traces


@pytest.mark.parametrize("dimension", [2, 3])
def test_points_and_the_lines_between_them(dimension):
    points = F.normalize(torch.randn(2, 4, dimension, generator=torch.Generator().manual_seed(0)), dim=-1)
    outline, pairs, anchors, positives = go.Figure(sphere_traces(points, classes=[0, 0, 2, 3])).data
    axes = "xyz"[:dimension]
    for trace, side in ((anchors, points[0]), (positives, points[1])):
        drawn = torch.tensor([list(trace[axis]) for axis in axes]).T
        torch.testing.assert_close(drawn, side, atol=1e-4, rtol=0)
        first, second, *alone = trace.marker.color
        assert first == second != ALONE and alone == [ALONE, ALONE]
    for axis in axes:
        ends = list(pairs[axis])
        assert ends[0::3] == list(anchors[axis]) and ends[1::3] == list(positives[axis])
        assert ends[2::3] == [None] * 4
    on_it = [sum(v**2 for v in point) for point in zip(*(outline[a] for a in axes), strict=True) if None not in point]
    assert len(on_it) > 40 and on_it == pytest.approx([1] * len(on_it), abs=1e-3)
