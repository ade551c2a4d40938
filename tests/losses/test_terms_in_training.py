"""Every term in the stock trainer, in fp32 and bf16: alone, and all inside one `DLELoss`.

For 20 steps on every push, and for 200 with ``ST_VI_FUZZ=1``.
"""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset

from st_vi import DLELoss, Task, train_vipolyqwen
from st_vi.tasks import VIPOLYQWEN_TASKS
from tests.conftest import SENTENCES
from tests.helpers.fuzz import SHARE
from tests.helpers.term_checks import every_term

pytestmark = pytest.mark.slow

STEPS = 200 if SHARE == 1 else 20
ALL = every_term()
del ALL["SimilarityDecorrelation"]  # needs two positives: tests/terms/test_similarity_decorrelation.py
ROWS = Dataset.from_dict(
    {
        "anchor": SENTENCES,
        "positive": [sentence.lower() for sentence in SENTENCES],
        "negative_1": SENTENCES[1:] + SENTENCES[:1],
        "negative_2": SENTENCES[3:] + SENTENCES[:3],
        "score": [1.0, 0.0, 0.5, 0.8, 0.2, 1.0, 0.4, 0.6],
        "teacher_scores": [[1.0, 0.6, 0.1]] * 8,
        "anchor_teacher": torch.randn(8, 32, generator=torch.Generator().manual_seed(0)).tolist(),
        "class": [0, 1, 2, 0, 1, 2, 0, 1],
        "task": ["text_pair"] * 8,
    }
)


def train(model, folder, *of_task, bf16):
    """The loss at the first steps and at the last."""
    loss = DLELoss(model, [Task("text_pair", "", of_task)])
    trainer = train_vipolyqwen(
        model, ROWS, folder, loss=loss, max_steps=STEPS, per_device_train_batch_size=8, gradient_accumulation_steps=1,
        learning_rate=1e-3, bf16=bf16, use_cpu=True, logging_steps=STEPS // 10, save_strategy="no", report_to="none",
        disable_tqdm=True,
    )  # fmt: skip
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == 10
    assert all(math.isfinite(value) for entry in log for value in entry.values())
    return log[0]["loss"], log[-1]["loss"]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", ALL)
def test_alone(name, bf16, tiny_model, tmp_path):
    first, last = train(tiny_model, tmp_path, ALL[name], bf16=bf16)
    assert last < first


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_all_beside_those_of_the_paper(bf16, tiny_model, tmp_path):
    paper = VIPOLYQWEN_TASKS[0].terms
    others = [term for name, term in ALL.items() if name not in {type(term).__name__ for term in paper}]
    first, last = train(tiny_model, tmp_path, *paper, *others, bf16=bf16)
    assert last < first
