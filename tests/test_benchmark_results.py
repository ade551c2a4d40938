"""Benchmarks go on where they stopped, never mix figures of different settings, and say what they could not measure."""

from __future__ import annotations

import pytest

from tests.benchmarks import blocks, lazy_images, plan
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


@pytest.mark.slow
def test_large_batches_by_blocks_and_at_once(monkeypatch):
    for owner, name in ((blocks, "limit_memory"), (blocks.torch, "set_num_threads")):  # of the whole process
        monkeypatch.setattr(owner, name, lambda _: None)
    monkeypatch.setattr(blocks, "WARM_UP", 4)
    cut, uncut = (blocks.run(case, 12, 5) for case in ("cut", "uncut"))
    assert cut["value"] == pytest.approx(uncut["value"]) and cut["gradient"] == pytest.approx(uncut["gradient"])
    assert 0 < cut["forward"] < cut["seconds"] and uncut["bytes"] >= 0
    texts = blocks.texts(50)
    assert len({text for column in texts for text in column}) == 100


def test_a_batch_that_needs_too_much_memory_is_said_to():
    small = {"seconds": 4.0, "bytes": 2.0**20, "value": 2.0}
    assert lazy_images.line(1000, small, None) == "| 1,000 | 4 | over 11 GiB | – | 1 | over 11 GiB | – | – |"
    large = {"seconds": 5.0, "bytes": 2.0**24, "value": 2.0}
    assert lazy_images.line(1000, small, large) == "| 1,000 | 4 | 5 | 0.80 × | 1 | 16 | 0.06 × | 0e+00 |"


def test_the_speed_of_a_plan_is_that_of_another_run():
    shorts = {name: plan.speed_case(case) for name, case in plan.CASES.items()}
    assert len({repr(short) for short in shorts.values()}) == 3  # each system and precision
    assert all(short != plan.CASES[name] for name, short in shorts.items())
    assert plan.error(110, 100) == "+10 %" and plan.error(90, 100) == "-10 %"
