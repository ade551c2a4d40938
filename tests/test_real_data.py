"""The real-data benchmarks, shortened: they run, and every figure is there."""

from __future__ import annotations

import math

import pytest

from st_vi.data import split_by_anchor
from tests.benchmarks import real_rows as real_rows_module
from tests.benchmarks import viclsr, vipolyqwen
from tests.benchmarks.real_rows import real_rows

pytestmark = pytest.mark.skipif(not viclsr.DATA.is_dir(), reason=f"no real data in {viclsr.DATA} (set ST_VI_DATA)")


def test_viclsr_benchmark_runs(monkeypatch):
    monkeypatch.setitem(viclsr.TRAINING, "max_steps", 2)
    rows = split_by_anchor(viclsr.nli_rows(), test_size=0.2, anchor="premise", seed=0)
    result = viclsr.run("neutral as weak positive", 0, rows)
    assert all(math.isfinite(result[figure]) for figure in viclsr.FIGURES)
    assert "neutral as weak positive | 1 | " in viclsr.table([result])


def test_vipolyqwen_benchmark_runs(monkeypatch):
    monkeypatch.setattr(vipolyqwen, "TRAIN_ROWS", dict.fromkeys(vipolyqwen.TRAIN_ROWS, 8))
    monkeypatch.setattr(vipolyqwen, "TEST_ROWS", 12)
    monkeypatch.setattr(vipolyqwen, "TEXT_PAIRS", {"train": 8, "test": 20})
    paragraphs = real_rows_module._paragraphs  # drawing all of them takes most of a minute
    monkeypatch.setattr(real_rows_module, "_paragraphs", lambda texts, *a, **k: paragraphs(texts[:40], *a, **k))
    monkeypatch.setattr(vipolyqwen, "real_rows", lambda *which: first_rows(real_rows(*which), 96))
    result = vipolyqwen.run(seed=0, word_steps=1, steps=1, real_steps=1)
    assert set(result["untrained"]) <= set(result["trained"])
    text = vipolyqwen.generated_table([result]) + vipolyqwen.real_table([result]) + vipolyqwen.pairs_line([result])
    for part in ("| words |", "unseen emoji: name to image", "driving questions (training rows)", "Spearman"):
        assert part in text


def first_rows(parts, count):
    return type(parts)({name: rows.select(range(min(count, len(rows)))) for name, rows in parts.items()})
