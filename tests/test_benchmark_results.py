"""Benchmarks go on where they stopped, and never mix figures of different settings."""

from __future__ import annotations

import pytest

from tests.benchmarks.results import Results, options_of


def test_figures_are_kept_line_by_line(tmp_path):
    path = tmp_path / "outputs" / "figures.jsonl"
    results = Results(path, steps=20)
    assert results == [] and not path.exists()
    results.keep({"arm": "gốc", "seed": 0})
    results.keep({"arm": "a", "seed": 0}, {"arm": "b", "seed": 0})
    assert Results(path, steps=20) == results
    assert [one["arm"] for one in results] == ["gốc", "a", "b"] and "gốc" in path.read_text(encoding="utf-8")
    assert all(one["steps"] == 20 for one in results)


def test_figures_of_other_settings_are_refused(tmp_path):
    path = tmp_path / "figures.jsonl"
    Results(path, steps=20).keep({"arm": "a"})
    with pytest.raises(SystemExit, match=r"has figures with {'steps': 20}, not {'steps': 45}: give another file"):
        Results(path, steps=45)


def test_the_shared_options():
    options = options_of("Một phép đo.", "ten", seeds=[0]).parse_args(["--no-docs"])
    assert options.results.as_posix() == "outputs/ten.jsonl" and options.seeds == [0]
    assert options.no_docs and not options.table_only
