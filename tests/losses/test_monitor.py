"""`DLEMonitor` against means taken by hand over the rows of all steps."""

from __future__ import annotations

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from st_vi import DLELoss
from st_vi.losses import DLEMonitor
from st_vi.terms import CosineAlignment, InfoNCE, PairBatch, ScoreMSE
from tests.helpers.columns import LABELS, NAN


def log(monitor, tmp_path, **logs):
    state = TrainerState()
    earlier = {"loss": 9.0}
    state.log_history = [dict(earlier), dict(logs)]
    monitor.on_log(TrainingArguments(str(tmp_path), use_cpu=True), state, TrainerControl(), logs)
    assert state.log_history[0] == earlier  # an entry gets its own figures only
    return state.log_history[-1], logs


def test_means_are_over_the_rows_that_had_the_term(tmp_path):
    generator = torch.Generator().manual_seed(0)
    steps = [[torch.randn(11, 5, generator=generator, dtype=torch.float64) for _ in range(2)] for _ in range(2)]
    labels = [LABELS, LABELS.clone()]
    labels[1][2, 1] = NAN  # two of three scores left
    labels[1][3] = torch.tensor([2.0, NAN])  # and one row of "instr" only
    loss = DLELoss(None)
    monitor = DLEMonitor(loss)
    for vectors, label in zip(steps, labels, strict=True):
        loss.compute_loss_from_embeddings(vectors, label)
    with torch.no_grad():  # an evaluation in between does not count
        loss.compute_loss_from_embeddings(steps[0], labels[0])
    history, logs = log(monitor, tmp_path, loss=1.0)
    assert history == logs

    def rows(step, task):
        chosen = labels[step][:, 0] == task
        a, p = (v[chosen] for v in steps[step])
        return PairBatch(a, p, scores=labels[step][chosen, 1])

    instr = torch.cat([CosineAlignment()(rows(step, 1)) for step in (0, 1)])
    assert len(instr) == 3
    assert logs["dle/instr_cosine_alignment"] == pytest.approx(instr.mean().item())
    multi = torch.cat([InfoNCE(temperature=0.07, symmetric=True)(rows(step, 4)) for step in (0, 1)])
    assert logs["dle/vqa_multi_info_nce"] == pytest.approx(multi.mean().item())
    squares = torch.cat([ScoreMSE()(rows(step, 0)) for step in (0, 1)])
    assert logs["dle/text_pair_score_mse"] == pytest.approx(squares.sum().item() / 5)  # of 6 rows, 5 had a score

    right = total = 0
    for step in (0, 1):
        pairs = rows(step, 0)
        for i, s in enumerate(pairs.scores):
            for j, t in enumerate(pairs.scores):
                if s > t:
                    total += 1
                    right += int(pairs.cosine[i] > pairs.cosine[j])
    assert total == 3 and logs["dle/text_pair_pairwise_rank_in_order"] == pytest.approx(right / total)
    assert logs["dle/text_pair_pairwise_rank_constant"] == 0.05


def test_each_log_starts_anew_and_tasks_without_rows_are_not_logged(tmp_path):
    loss = DLELoss(None)
    monitor = DLEMonitor(loss)
    vectors = [torch.randn(2, 4) for _ in range(2)]
    loss.compute_loss_from_embeddings(vectors, torch.tensor([[1, NAN], [1, NAN]]))
    assert "dle/instr_info_nce" not in log(monitor, tmp_path, eval_loss=1.0)[1]
    logs = log(monitor, tmp_path, loss=1.0)[1]
    assert {name for name in logs if name.startswith("dle/")} == {"dle/instr_info_nce", "dle/instr_cosine_alignment"}
    assert log(monitor, tmp_path, loss=1.0)[1] == {"loss": 1.0}
