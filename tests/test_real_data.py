"""The real-data benchmark, shortened: it runs, and every figure is there."""

from __future__ import annotations

import math

import pytest

from st_vi.data import split_by_anchor
from tests.benchmarks import viclsr


@pytest.mark.skipif(not viclsr.DATA.is_dir(), reason=f"no real data in {viclsr.DATA} (set ST_VI_DATA)")
def test_viclsr_benchmark_runs(monkeypatch):
    monkeypatch.setitem(viclsr.TRAINING, "max_steps", 2)
    rows = split_by_anchor(viclsr.nli_rows(), test_size=0.2, anchor="premise", seed=0)
    result = viclsr.run("neutral as weak positive", 0, rows)
    assert all(math.isfinite(result[figure]) for figure in viclsr.FIGURES)
    assert "neutral as weak positive | 1 | " in viclsr.table([result])
