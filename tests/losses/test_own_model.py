"""A loss that was made with another model than the one to train is an error before the first step."""

from __future__ import annotations

import copy

import pytest
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses as stock

from st_vi import CachedDLELoss, CachedSupConNLILoss, DLELoss, MixedTaskCollator, SupConNLILoss, train_viclsr
from st_vi.losses import DLEMonitor, LossKeeper, NextTokenLoss, RatingLoss
from st_vi.losses.own_model import check_own_model, own_losses
from st_vi.recipes import train_vipolyqwen

ROWS = Dataset.from_dict({"anchor": ["Trời mưa.", "Trời nắng."], "positive": ["Có mưa.", "Có nắng."]})
MADE = {
    "SupConNLILoss": SupConNLILoss,
    "CachedSupConNLILoss": CachedSupConNLILoss,
    "DLELoss": DLELoss,
    "CachedDLELoss": CachedDLELoss,
    "stock": stock.MultipleNegativesRankingLoss,
    "inside": lambda model: stock.MatryoshkaLoss(model, SupConNLILoss(copy.deepcopy(model)), [16, 32]),
}


@pytest.mark.parametrize("name", MADE)
def test_training_refuses_it(tiny_model, tmp_path, name):
    other = tiny_model if name == "inside" else copy.deepcopy(tiny_model)
    with pytest.raises(ValueError, match="was made with another model than the one to train"):
        train_viclsr(tiny_model, ROWS, tmp_path / "out", loss=MADE[name](other))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by_name", [False, True])
def test_training_refuses_what_a_function_makes_with_another(tiny_model, tmp_path, by_name):
    other = copy.deepcopy(tiny_model)

    def made(model):
        return SupConNLILoss(other)

    with pytest.raises(ValueError, match="was made with another model than the one to train"):
        train_viclsr(tiny_model, {"a": ROWS} if by_name else ROWS, tmp_path, loss={"a": made} if by_name else made)
    assert not list(tmp_path.iterdir())


def test_training_of_tasks_refuses_it_and_a_loss_without_a_model(tiny_model, tmp_path):
    rows = ROWS.add_column("task", ["instr", "instr"])
    for loss, message in ((DLELoss(copy.deepcopy(tiny_model)), "with another model"), (DLELoss(None), "without a")):
        with pytest.raises(ValueError, match=f"DLELoss was made {message}"):
            train_vipolyqwen(tiny_model, rows, tmp_path / "out", loss=loss)


def test_a_guide_may_be_another_model(tiny_model):
    check_own_model(stock.GISTEmbedLoss(tiny_model, guide=copy.deepcopy(tiny_model)), tiny_model)
    check_own_model({"a": SupConNLILoss(tiny_model), "b": SupConNLILoss}, tiny_model)
    with pytest.raises(ValueError, match="another model"):
        check_own_model({"a": SupConNLILoss(tiny_model), "b": SupConNLILoss(copy.deepcopy(tiny_model))}, tiny_model)


def test_the_monitor_sees_it_in_the_stock_trainer(tiny_model, tmp_path):
    loss = DLELoss(copy.deepcopy(tiny_model))
    arguments = SentenceTransformerTrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    trainer = SentenceTransformerTrainer(
        tiny_model,
        arguments,
        train_dataset=ROWS.add_column("task", ["instr", "instr"]),
        loss=loss,
        data_collator=MixedTaskCollator(tiny_model.preprocess),
        callbacks=[DLEMonitor(loss)],
    )
    with pytest.raises(ValueError, match="was made with another model"):
        trainer.train()


@pytest.mark.parametrize(
    "loss", [SupConNLILoss, CachedSupConNLILoss, DLELoss, CachedDLELoss, RatingLoss, NextTokenLoss]
)
def test_the_name_of_a_model_is_none(loss):
    with pytest.raises(ValueError, match=r"must be a SentenceTransformer, such as st_vi\.load\('vi-mini'\), got str"):
        loss("vi-mini")


@pytest.mark.parametrize("loss", [SupConNLILoss, CachedSupConNLILoss, DLELoss, CachedDLELoss])
def test_a_loss_shows_its_settings(tiny_model, loss):
    shown = repr(loss(tiny_model, mask_duplicates=False))
    assert shown.startswith(f"{loss.__name__}(") and "mask_duplicates=False" in shown and len(shown.splitlines()) == 1
    for name, value in loss(tiny_model, mask_duplicates=False).get_config_dict().items():
        assert f"{name}={value!r}" in shown


def test_callbacks_find_losses_in_dicts_and_wrappers_once(tiny_model, tmp_path):
    own = DLELoss(tiny_model, balance="dynamic_weight_average")
    losses = {"a": stock.MatryoshkaLoss(tiny_model, own, [32, 16]), "b": own, "c": SupConNLILoss(tiny_model)}
    assert own_losses(losses, DLELoss) == [own]
    assert len(LossKeeper(losses).state()["attributes"]["saved"]) == 1
    assert len(LossKeeper(*losses.values()).state()["attributes"]["saved"]) == 1
    rows = ROWS.add_column("task", ["instr", "instr"])
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=2, logging_steps=1, report_to="none", use_cpu=True
    )
    trainer = SentenceTransformerTrainer(
        tiny_model,
        arguments,
        train_dataset=DatasetDict({"a": rows, "b": rows}),
        loss=losses,
        data_collator=MixedTaskCollator(tiny_model.preprocess),
        callbacks=[DLEMonitor(losses), LossKeeper(losses)],
    )
    trainer.train()
    assert all("dle/instr_info_nce" in entry for entry in trainer.state.log_history if "loss" in entry)
    with pytest.raises(ValueError, match="there is none among these losses"):
        DLEMonitor(SupConNLILoss(tiny_model))
