"""Logs of the stock trainer as figures: what is drawn is what was logged."""

from __future__ import annotations

import json

import pytest
import torch
from datasets import Dataset

from st_vi.evaluation.geometry import gradient_shares
from st_vi.recipes import train_vipolyqwen
from st_vi.viz.dynamics import gradient_share_bars, loss_components, penalty_traces
from tests.conftest import SENTENCES

LOG = [
    {"step": 5, "loss": 2.0, "dle/text_pair_info_nce": 1.5, "dle/text_pair_pairwise_rank": 0.05},
    {"step": 5, "eval_loss": 9.0},
    {"step": 10, "loss": 1.0, "dle/text_pair_info_nce": 1.0, "dle/text_pair_pairwise_rank": 0.04}
    | {"dle/text_pair_pairwise_rank_constant": 0.05, "dle/text_pair_pairwise_rank_in_order": 0.7},
]


def drawn(figure):
    return {trace.name: (list(trace.x), list(trace.y)) for trace in figure.data}


def test_components_of_a_log():
    figure = loss_components(LOG)
    assert drawn(figure) == {
        "text_pair_info_nce": ([5, 10], [1.5, 1.0]),
        "text_pair_pairwise_rank": ([5, 10], [0.05, 0.04]),
        "text_pair_pairwise_rank, all alike": ([10], [0.05]),
        "text_pair_pairwise_rank, in order": ([10], [0.7]),
    }
    axes = {trace.name: trace.yaxis for trace in figure.data}
    assert axes.pop("text_pair_pairwise_rank, in order") == "y2" and set(axes.values()) == {"y"}
    assert figure.layout.yaxis.type == "log" and loss_components(LOG, log_scale=False).layout.yaxis.type == "linear"


def test_the_state_that_a_stock_trainer_saves(tiny_model, tmp_path):
    halves = [sentence.split(maxsplit=4) for sentence in SENTENCES]
    columns = {"anchor": [" ".join(words[:4]) for words in halves], "positive": [words[4] for words in halves]}
    rows = Dataset.from_dict(columns | {"task": ["ocr"] * len(SENTENCES)})
    settings = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 4, "gradient_accumulation_steps": 1}
    trainer = train_vipolyqwen(
        tiny_model, rows, tmp_path, num_train_epochs=1, per_device_train_batch_size=2, use_cpu=True, **settings
    )
    figure = loss_components(trainer.state.log_history)
    assert list(figure.data[0].x) == [1, 2, 3, 4] and figure.data[0].name == "ocr_info_nce"
    for path in (tmp_path / "checkpoint-4", str(tmp_path / "checkpoint-4" / "trainer_state.json")):
        assert drawn(loss_components(path)) == drawn(figure)


def test_logs_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="DLEMonitor"):
        loss_components([{"step": 1, "loss": 2.0}])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(ValueError, match="has no log_history"):
        loss_components(tmp_path / "other.json")
    with pytest.raises(ValueError, match="not a file"):
        loss_components(tmp_path / "nothing")
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": []}))
    with pytest.raises(ValueError, match="DLEMonitor"):
        loss_components(tmp_path)


def test_bars_of_gradients():
    x = torch.tensor([1.0, 0.0], requires_grad=True)
    shares = gradient_shares({"InfoNCE": 3 * x[0], "HardestNegativeMargin": 4 * x[1]}, x)
    figure = gradient_share_bars(shares)
    assert figure.data[0].y == pytest.approx((3 / 7, 4 / 7)) and figure.data[1].y == pytest.approx((9 / 25, 16 / 25))
    assert [name.replace("<br>", "") for name in figure.data[0].x] == list(shares)
    assert figure.layout.barmode == "group"


def test_penalty_by_rank():
    traces = penalty_traces(torch.tensor([[0.5, 0.2, 0.1], [0.1, 0.1, 0.0]]))
    assert [trace["x"] for trace in traces] == [[1, 2, 3]] * 2
    assert traces[1]["y"] == pytest.approx([0.1, 0.1, 0.0])
    assert len(penalty_traces(torch.tensor([0.7, 0.3]))) == 1
