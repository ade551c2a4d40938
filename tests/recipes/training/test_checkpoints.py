"""A checkpoint that is not whole is skipped with its reason, and the one before is taken."""

from __future__ import annotations

import logging
import shutil

import pytest
import torch
import transformers

from st_vi import build_viclsr, build_vipolyqwen, train_viclsr
from st_vi.data import nli_to_triplets, sample_nli
from st_vi.recipes.training.checkpoints import check_checkpoint, last_complete_checkpoint
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl
from tests.helpers.viclsr import SETTINGS, built


@pytest.fixture(scope="module")
def triplets():
    return nli_to_triplets(sample_nli().select(range(48)))["triplets"]


@pytest.fixture(scope="module")
def trained(tiny_base, triplets, tmp_path_factory):
    """Checkpoints of the steps 6 and 8, the last of them."""
    out = tmp_path_factory.mktemp("trained")
    model = built(tiny_base)
    train_viclsr(model, triplets, out, **SETTINGS)
    return model, out


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained[1], tmp_path / "out")


def cut(file):
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 2])


def garbage(file):
    file.write_bytes(b"PK" + bytes(range(256)) * 8)


def removed(file):
    file.unlink()


DAMAGES = [
    (removed, "trainer_state.json", "trainer_state.json is missing"),
    (cut, "trainer_state.json", "trainer_state.json is damaged or cut short"),
    (removed, "modules.json", "modules.json is missing"),
    (cut, "modules.json", "modules.json is damaged or cut short"),
    (cut, "tokenizer.json", "tokenizer.json is damaged or cut short"),
    (cut, "model.safetensors", "model.safetensors is not a file of plain weights: it is damaged"),
    (removed, "model.safetensors", "the weights of Transformer are missing"),
    (cut, "2_Dense/model.safetensors", "2_Dense/model.safetensors is not a file of plain weights"),
    (removed, "2_Dense/model.safetensors", "the weights of Dense are missing"),
    (removed, "1_Pooling/config.json", "1_Pooling/config.json is missing"),
    (removed, "2_Dense/config.json", "2_Dense/config.json is missing"),
    (removed, "sentence_bert_config.json", "sentence_bert_config.json is missing"),
    (removed, "config.json", "config.json is missing"),
    (removed, "tokenizer.json", "tokenizer.json is missing"),
    (cut, "optimizer.pt", "optimizer.pt is not a file of plain weights"),
    (garbage, "optimizer.pt", "optimizer.pt is not a file of plain weights"),
    (removed, "optimizer.pt", "optimizer.pt is missing"),
    (cut, "scheduler.pt", "scheduler.pt is not a file of plain weights"),
    (cut, "rng_state.pth", "rng_state.pth is not a file of plain weights"),
    (removed, "rng_state.pth", "rng_state*.pth is missing"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("damage", "name", "reason"), DAMAGES)
def test_the_one_before_is_taken(trained, copied, damage, name, reason, caplog):
    damage(copied / "checkpoint-8" / name)
    assert last_complete_checkpoint(copied, trained[0]) == str(copied / "checkpoint-6")
    (notice,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert notice.startswith(f"{copied}/checkpoint-8 is not complete and is skipped: ") and reason in notice


@pytest.mark.parametrize("name", ["tokenizer.json", "processor_config.json"])
def test_a_checkpoint_for_images_needs_its_vocabulary_and_its_processor(tmp_path, name):
    """Without tokens, the weights of a resumed run were others, without an error."""
    model = build_vipolyqwen(save_tiny_qwen2_vl(tmp_path / "base"), embedding_dimension=8)
    checkpoint = tmp_path / "checkpoint-1"
    model.save_pretrained(str(checkpoint))
    (checkpoint / "trainer_state.json").write_text("{}")
    check_checkpoint(checkpoint, model, states=False)
    (checkpoint / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        check_checkpoint(checkpoint, model, states=False)


def test_a_tokenizer_of_bytes_has_no_vocabulary(tiny_base, tmp_path):
    """As of ByT5: its settings are all that it saves."""
    model, checkpoint = built(tiny_base), tmp_path / "checkpoint-1"
    model[0].processor = transformers.ByT5Tokenizer()
    model.save_pretrained(str(checkpoint))
    (checkpoint / "trainer_state.json").write_text("{}")
    check_checkpoint(checkpoint, model, states=False)


def test_the_last_is_the_one_with_most_steps(trained, copied, caplog):
    assert last_complete_checkpoint(copied, trained[0]) == str(copied / "checkpoint-8")
    (copied / "checkpoint-8").rename(copied / "checkpoint-10")
    for other in ("checkpoint-99-old", "checkpoint-", "checkpoint-x"):
        (copied / other).mkdir()
    (copied / "checkpoint-98").touch()
    assert last_complete_checkpoint(copied, trained[0]) == str(copied / "checkpoint-10")
    assert not caplog.records
    (copied / "checkpoint-11").mkdir()  # empty
    assert last_complete_checkpoint(copied, trained[0]) == str(copied / "checkpoint-10")
    assert "checkpoint-11 is not complete and is skipped: trainer_state.json is missing" in caplog.text


def test_none_is_left(trained, copied, tmp_path, caplog):
    for step in (6, 8):
        cut(copied / f"checkpoint-{step}" / "optimizer.pt")
    assert last_complete_checkpoint(copied, trained[0]) is None
    assert caplog.messages[-1] == f"no checkpoint in {copied} is complete: training starts from scratch"
    caplog.clear()
    assert last_complete_checkpoint(tmp_path / "new", trained[0]) is None and not caplog.messages


def test_a_checkpoint_without_states_is_whole_where_none_are_saved(tiny_base, triplets, trained, tmp_path):
    train_viclsr(built(tiny_base), triplets, tmp_path, save_only_model=True, max_steps=3, **SETTINGS)
    assert last_complete_checkpoint(tmp_path, trained[0], states=False) == str(tmp_path / "checkpoint-3")
    assert last_complete_checkpoint(tmp_path, trained[0]) is None


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [(8,), (6, 8)], ids=["the last", "all"])
def test_a_resumed_training_ends_with_the_same_weights(tiny_base, triplets, trained, copied, damaged, caplog):
    for step in damaged:
        cut(copied / f"checkpoint-{step}" / "optimizer.pt")
    # Only one that starts anew needs the same random head.
    model = built(tiny_base) if damaged == (6, 8) else build_viclsr(tiny_base)
    trainer = train_viclsr(model, triplets, copied, resume=True, **SETTINGS)
    assert trainer.state.global_step == 8
    assert ("starts from scratch" in caplog.text) == (damaged == (6, 8))
    for name, value in trained[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    assert last_complete_checkpoint(copied, model) == str(copied / "checkpoint-8")  # it is whole again


def test_a_resumed_training_warns_of_nothing(tiny_base, triplets, copied, monkeypatch):
    """transformers compares ``logging_steps=0.05`` with the steps that it counted when the run began."""
    told = []
    monkeypatch.setattr(transformers.trainer_utils.logger, "warning_once", told.append)
    trainer = train_viclsr(built(tiny_base), triplets, copied, resume=True, **SETTINGS)
    assert trainer.args.logging_steps == trainer.state.logging_steps == 1 and not told


def test_an_argument_of_stock_that_does_nothing_here_is_refused(tiny_base, triplets, tmp_path, copied):
    with pytest.raises(ValueError, match="resume=True"):
        train_viclsr(built(tiny_base), triplets, tmp_path / "new", resume_from_checkpoint=str(copied), **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_a_finished_run_that_is_resumed_takes_no_further_step(tiny_base, triplets, tmp_path, strategy):
    # Within an epoch, and at a rate that does not end at 0: one more step would change the weights.
    settings = SETTINGS | {"max_steps": 3, "save_strategy": strategy, "lr_scheduler_type": "constant"}
    model, again = built(tiny_base), built(tiny_base)
    train_viclsr(model, triplets, tmp_path, **settings)
    trainer = train_viclsr(again, triplets, tmp_path, resume=True, **settings)
    assert trainer.state.global_step == 3
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_an_error_of_the_training_stays_what_it_is(tiny_base, triplets, tmp_path, monkeypatch):
    model = built(tiny_base)
    monkeypatch.setattr(model[1], "forward", lambda features: (_ for _ in ()).throw(RuntimeError("no room")))
    with pytest.raises(RuntimeError, match=r"^no room$"):
        train_viclsr(model, triplets, tmp_path, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"save_strategy": "no"}, {"save_strategy": "epoch", "num_train_epochs": 2}])
def test_weights_that_are_no_numbers_are_not_saved(tiny_base, triplets, tmp_path, settings):
    """Nor kept as the last of a run that saves only at its end."""
    with pytest.raises(
        ValueError, match=r"diverged: after step \d, .* NaN or infinity; .* lower learning rate .* 1e\+12"
    ):
        train_viclsr(built(tiny_base), triplets, tmp_path, **SETTINGS | {"learning_rate": 1e12} | settings)
    assert not list(tmp_path.iterdir())  # so that the folder is free for the next try
