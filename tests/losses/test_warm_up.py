"""`InfoNCEWarmUp` inside the stock trainer: which terms count when, and after a resume."""

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from transformers import TrainerCallback, TrainerState

from st_vi import DLELoss, MixedTaskCollator, SupConNLILoss
from st_vi.losses import InfoNCEWarmUp
from st_vi.recipes import train_vipolyqwen
from tests.conftest import SENTENCES
from tests.helpers.one_epoch import SETTINGS


class Stop(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 2


@pytest.fixture
def rows():
    halves = [sentence.split(maxsplit=4) for sentence in SENTENCES]
    columns = {"anchor": [" ".join(words[:4]) for words in halves], "positive": [words[4] for words in halves]}
    return Dataset.from_dict(columns | {"task": ["ocr"] * len(SENTENCES)})


def logged(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def test_other_terms_join_after_the_share_of_steps(tiny_model, rows, tmp_path):
    loss = DLELoss(tiny_model)
    steps = logged(train_vipolyqwen(tiny_model, rows, tmp_path, loss=loss, info_nce_warm_up=0.5, **SETTINGS))
    assert [step["ocr_hardest_negative_margin"] > 0 for step in steps] == [False, False, True, True]
    assert [step["ocr_info_nce"] > 0 for step in steps] == [True] * 4
    assert loss.tasks == DLELoss(tiny_model).tasks


def test_a_resumed_training_goes_on_where_it_was(tiny_model, rows, tmp_path):
    settings = SETTINGS | {"info_nce_warm_up": 0.75}
    train_vipolyqwen(tiny_model, rows, tmp_path, callbacks=[Stop()], **settings)
    steps = logged(train_vipolyqwen(tiny_model, rows, tmp_path, resume=True, **settings))[-2:]
    assert [step["ocr_hardest_negative_margin"] > 0 for step in steps] == [False, True]


def test_the_share_has_a_range():
    assert [InfoNCEWarmUp(DLELoss(None), share).share for share in (0.0, 1.0)] == [0.0, 1.0]
    with pytest.raises(ValueError, match="share"):
        InfoNCEWarmUp(DLELoss(model=None), 1.5)


def test_the_reason_the_margin_is_smallest_when_all_vectors_are_the_same():
    loss = DLELoss(model=None)
    labels = torch.tensor([[2.0, float("nan")]] * 8)
    torch.manual_seed(0)
    random = [torch.randn(8, 16) for _ in range(2)]
    same = [torch.ones(8, 16)] * 2
    margin = "ocr_hardest_negative_margin"
    at_random, collapsed = (loss.compute_loss_from_embeddings(columns, labels)[margin] for columns in (random, same))
    assert collapsed == pytest.approx(0.2, abs=1e-5)
    assert at_random > 2 * collapsed


@pytest.mark.slow
def test_evaluations_and_cards_have_all_terms(tiny_model, rows, tmp_path):
    loss = DLELoss(tiny_model)
    seen = []

    class Watch(TrainerCallback):
        def on_evaluate(self, args, state, control, **kwargs):
            seen.append(loss.get_config_dict()["tasks"])

    arguments = SETTINGS | {"eval_strategy": "steps", "eval_steps": 1, "report_to": "none", "learning_rate": 0.0}
    trainer = SentenceTransformerTrainer(
        tiny_model,
        SentenceTransformerTrainingArguments(str(tmp_path), **arguments),
        train_dataset=rows,
        eval_dataset=rows,
        loss=loss,
        data_collator=MixedTaskCollator(tiny_model.preprocess),
        callbacks=[InfoNCEWarmUp(loss, 0.5), Watch()],
    )
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert losses == pytest.approx([losses[0]] * 4) and seen == [DLELoss(None).get_config_dict()["tasks"]] * 4


def test_losses_in_dicts_and_wrappers_are_found(tiny_model):
    first, second = DLELoss(tiny_model), DLELoss(tiny_model)
    callback = InfoNCEWarmUp({"a": MatryoshkaLoss(tiny_model, first, [32, 16]), "b": second}, 0.5)
    state = TrainerState(max_steps=4)
    for losses, step in (([0.0, 0.0], callback.on_step_begin), ([3.0, 3.0], callback.on_step_end)):
        step(None, state, None)
        assert [loss.tasks[0].terms[1].weight for loss in (first, second)] == losses
    with pytest.raises(ValueError, match="InfoNCEWarmUp needs a DLELoss"):
        InfoNCEWarmUp(SupConNLILoss(tiny_model), 0.5)
