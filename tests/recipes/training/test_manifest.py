"""A run goes on as itself or not at all, and takes nobody's place unasked."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from contextlib import contextmanager

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainingArguments
from tokenizers.normalizers import Lowercase
from transformers import TrainerCallback

from st_vi import CachedSupConNLILoss, SupConNLILoss, build_viclsr, build_vipolyqwen, load, train_viclsr
from st_vi import train_vipolyqwen as train_mixed
from st_vi.recipes.training import run
from st_vi.recipes.training.manifest import MANIFEST, check_folder, describe, differences
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

pytestmark = pytest.mark.slow

ROWS = {
    "anchor": [f"Hôm nay trời mưa to, ngày {n}." for n in range(24)],
    "positive": [f"Ngày {n} có mưa." for n in range(24)],
    "negative": [f"Ngày {n} trời nắng." for n in range(24)],
}
SETTINGS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "save_strategy": "steps",
    "save_steps": 5,
    "logging_steps": 100,
    "disable_tqdm": True,
    "use_cpu": True,
}


def built(base, seed=0):
    torch.manual_seed(seed)
    return build_viclsr(base)


def rows(**changes):
    return Dataset.from_dict(ROWS | changes)


def content(folder):
    """Every file and when it was written."""
    return {str(f.relative_to(folder)): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


class CtrlC(TrainerCallback):
    """A real SIGINT, at the begin of a step or of an evaluation's step."""

    def __init__(self, step, times=1):
        self.step, self.times = step, times

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tiny_base, tmp_path_factory):
    """A finished run, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    model = built(tiny_base)
    train_viclsr(model, rows(), folder, **SETTINGS)
    return model, folder


@pytest.fixture
def used(whole, tmp_path):
    """A folder with a finished run, to be tried on."""
    shutil.copytree(whole[1], tmp_path / "run")
    return tmp_path / "run"


def test_a_used_folder_is_refused_and_stays_as_it_is(tiny_base, used):
    before = content(used)
    assert {"checkpoint-10", "checkpoint-12"} <= {path.name for path in used.iterdir()}
    with pytest.raises(ValueError, match=r"files of an earlier run .*resume=True .*overwrite=True"):
        train_viclsr(built(tiny_base), rows(), used, **SETTINGS)
    assert content(used) == before


def test_overwriting_replaces_the_run_and_leaves_other_files(tiny_base, used):
    for name in ("notes.txt", "tokenizer.jsonl", "tokenizer_notes.txt", "model-notes.json"):
        (used / name).write_text("mine")
    for folder in ("data", "eval", "1_Data", "old checkpoint", "1_Pooling"):
        (used / folder).mkdir(exist_ok=True)
        (used / folder / "rows.jsonl").write_text("{}")
    train_viclsr(built(tiny_base), rows(), used, overwrite=True, **SETTINGS | {"max_steps": 6})
    assert {path.name for path in used.glob("checkpoint-*")} == {"checkpoint-5", "checkpoint-6"}
    for name in ("notes.txt", "tokenizer.jsonl", "tokenizer_notes.txt", "model-notes.json"):
        assert (used / name).read_text() == "mine"
    for folder in ("data", "eval", "1_Data", "old checkpoint", "1_Pooling"):
        assert (used / folder / "rows.jsonl").is_file()
    assert json.loads((used / MANIFEST).read_text())["max_steps"] == 6
    assert load(used).encode("Trời mưa.").shape == (32,)


@pytest.mark.parametrize("name", ["checkpoint-best", "checkpoint-3"])
def test_folders_that_the_trainer_would_take_for_checkpoints_are_named(tiny_base, used, name):
    (used / name).mkdir()
    (used / name / "photo.jpg").write_text("mine")
    for other in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ValueError, match=rf"would delete as old checkpoints \({name}\): rename them"):
            train_viclsr(built(tiny_base), rows(), used, **other, **SETTINGS)


def test_two_runs_at_the_same_time(tiny_base, tmp_path):
    """The second one in the same folder stops when the first has begun, whatever it was told to do with the folder."""

    class Second(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            for other in ({"overwrite": True}, {"resume": True}):
                with pytest.raises(ValueError, match="another run is at work in"):
                    train_viclsr(built(tiny_base), rows(), tmp_path, **other, **SETTINGS | {"max_steps": 1})

    train_viclsr(built(tiny_base), rows(), tmp_path, callbacks=[Second()], **SETTINGS | {"max_steps": 1})
    assert (tmp_path / "modules.json").is_file()


def test_a_run_that_was_faster(tiny_base, tmp_path, monkeypatch):
    """It ends between the look at the folder and the lock on it."""

    @contextmanager
    def late(folder):
        (tmp_path / MANIFEST).write_text("{}")
        yield

    monkeypatch.setattr(run, "alone_in", late)
    with pytest.raises(ValueError, match="--resume"):
        train_viclsr(built(tiny_base), rows(), tmp_path, **SETTINGS | {"max_steps": 1})
    assert (tmp_path / MANIFEST).read_text() == "{}"


@pytest.mark.parametrize("name", ["README.md", "config.json", "tokenizer.json", "model.safetensors"])
def test_a_file_that_is_not_of_a_training_is_never_written_over(tiny_base, tmp_path, name):
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=f"would overwrite .{name}.: use another folder"):
            train_viclsr(built(tiny_base), rows(), tmp_path, overwrite=overwrite, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_a_folder_with_other_files_is_free(tiny_base, tmp_path):
    (tmp_path / "rows.csv").write_text("mine")
    train_viclsr(built(tiny_base), rows(), tmp_path, **SETTINGS | {"max_steps": 1})
    assert (tmp_path / "rows.csv").read_text() == "mine" and (tmp_path / "modules.json").is_file()


def test_the_base_is_not_deleted_to_make_room(used):
    with pytest.raises(ValueError, match="would delete: use another folder"):
        train_viclsr(load(used), rows(), used, overwrite=True, **SETTINGS)
    assert (used / "model.safetensors").is_file()


def test_all_of_a_run_is_in_one_folder(tiny_base, tmp_path, monkeypatch):
    """Stock takes "~" for the home, for checkpoints alone."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    train_viclsr(built(tiny_base), rows(), "~/run", **SETTINGS | {"max_steps": 5})
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert load("~/run").encode("Trời mưa.").shape == (32,)
    assert {"checkpoint-5", "modules.json", MANIFEST} <= {path.name for path in (tmp_path / "home" / "run").iterdir()}


def test_resume_and_overwrite_exclude_each_other(tiny_base, used):
    with pytest.raises(ValueError, match="exclude each other"):
        train_viclsr(built(tiny_base), rows(), used, resume=True, overwrite=True, **SETTINGS)


OTHERS = {
    "other rows": ({"positive": ["Có mưa."] * 24}, {}, r"rows was 24 rows, content \w+, now is 24 rows, content \w+"),
    "more rows": ({k: [*v, f"thêm {k}"] for k, v in ROWS.items()}, {}, "rows was 24 rows.* now is 25 rows"),
    "a learning rate": ({}, {"learning_rate": 1e-4}, "learning_rate was 0.001, now is 0.0001"),
    "a batch size": ({}, {"per_device_train_batch_size": 8}, "per_device_train_batch_size was 4, now is 8"),
    "a seed": ({}, {"seed": 7}, "seed was 42, now is 7"),
    "longer": ({}, {"num_train_epochs": 5}, "num_train_epochs was 2, now is 5.*to train longer"),
    "two things": ({}, {"seed": 7, "weight_decay": 0.1}, "weight_decay was 0.0, now is 0.1; seed was 42, now is 7"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run_is_not_resumed(tiny_base, used, name):
    changes, settings, message = OTHERS[name]
    before = content(used)
    with pytest.raises(ValueError, match=message) as error:
        train_viclsr(built(tiny_base), rows(**changes), used, resume=True, **SETTINGS | settings)
    assert "\n" not in str(error.value) and "has a different run" in str(error.value)
    assert content(used) == before


def test_another_base_loss_or_shape_is_not_resumed(tiny_base, used, tmp_path):
    other = built(tiny_base)
    with torch.no_grad():
        other[0].model.embeddings.word_embeddings.weight += 0.01
    with pytest.raises(ValueError, match=r"base was .*, content \w+, now is .*, content"):
        train_viclsr(other, rows(), used, resume=True, **SETTINGS)
    torch.manual_seed(0)
    for model, message in (
        (build_viclsr(tiny_base, pooling="mean"), "Pooling pooling_mode was 'cls', now is 'mean'"),
        (
            build_viclsr(tiny_base, activation="identity"),
            r"Dense activation_function was 'torch.*\.Tanh', now is 'torch.*\.Identity'",
        ),
        (build_viclsr(tiny_base, max_seq_length=16), "max_seq_length was 64, now is 16"),
    ):
        with pytest.raises(ValueError, match=message):
            train_viclsr(model, rows(), used, resume=True, **SETTINGS)
    model = built(tiny_base)
    for loss, message in (
        (SupConNLILoss(model, temperature=0.1), "loss temperature was 0.05, now is 0.1"),
        (CachedSupConNLILoss(model), "loss was 'SupConNLILoss', now is 'CachedSupConNLILoss'"),
    ):
        with pytest.raises(ValueError, match=message):
            train_viclsr(model, rows(), used, loss=loss, resume=True, **SETTINGS)


def test_what_does_not_change_the_weights_may_change(tiny_base, used, whole):
    settings = SETTINGS | {"logging_steps": 1, "save_steps": 4, "save_total_limit": 5}
    model = built(tiny_base, seed=5)  # the checkpoint brings back the head
    train_viclsr(model, Dataset.from_list(rows().to_list()), used, resume=True, **settings)
    assert (model.encode("Trời mưa.") == whole[0].encode("Trời mưa.")).all()


def test_a_copy_of_the_base_is_the_same_base(tiny_base, used, whole, tmp_path):
    shutil.copytree(tiny_base, tmp_path / "copy")
    model = built(tmp_path / "copy")
    train_viclsr(model, rows(), used, resume=True, **SETTINGS)
    assert (model.encode("Trời mưa.") == whole[0].encode("Trời mưa.")).all()


def test_checkpoints_of_nobody_knows_what_are_not_resumed(tiny_base, used):
    (used / MANIFEST).unlink()
    with pytest.raises(ValueError, match=f"{MANIFEST} is missing"):
        train_viclsr(built(tiny_base), rows(), used, resume=True, **SETTINGS)


def test_ctrl_c_leaves_a_checkpoint_from_which_the_same_weights_come(tiny_base, tmp_path, whole):
    model = built(tiny_base)
    # Step 8 is neither a checkpoint's nor the end of an epoch; saving was switched off altogether.
    settings = SETTINGS | {"save_strategy": "no"}
    with pytest.raises(KeyboardInterrupt):
        train_viclsr(model, rows(), tmp_path, callbacks=[CtrlC(7)], **settings)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    assert not (tmp_path / "modules.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for again in (built(tiny_base, seed=3), model):  # a new model, and the interrupted one itself
        shutil.copytree(tmp_path, folder := tmp_path.with_name(f"{tmp_path.name}-{id(again)}"))
        if again is model:
            folder = tmp_path
        train_viclsr(again, rows(), folder, resume=True, **settings)
        assert (again.encode("Trời mưa.") == whole[0].encode("Trời mưa.")).all()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_other_signals_leave_a_checkpoint_too(tiny_base, tmp_path, name):
    if (number := getattr(signal, name, None)) is None:
        pytest.skip(f"no {name} here")
    got = []

    class Asked(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 7:
                signal.raise_signal(number)

    before = signal.signal(number, lambda number, frame: got.append(number))
    try:
        with pytest.raises(KeyboardInterrupt):
            train_viclsr(built(tiny_base), rows(), tmp_path, callbacks=[Asked()], **SETTINGS)
        assert got == [number]  # then the program's own handler is called
        assert (tmp_path / "checkpoint-8" / "trainer_state.json").is_file()
        signal.signal(number, signal.SIG_IGN)  # as under nohup
        train_viclsr(built(tiny_base), rows(), tmp_path, callbacks=[Asked()], overwrite=True, **SETTINGS)
    finally:
        signal.signal(number, before)


def test_a_full_disk_after_ctrl_c_is_said(tiny_base, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise RuntimeError("[enforce fail at inline_container.cc:672]")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="checkpoint-3 could not be written completely"):
        train_viclsr(built(tiny_base), rows(), tmp_path, callbacks=[CtrlC(2)], **SETTINGS)


def test_ctrl_c_does_not_save_weights_of_nan(tiny_base, tmp_path):
    model = built(tiny_base)

    class Diverged(CtrlC):
        def on_step_begin(self, args, state, control, **kwargs):
            super().on_step_begin(args, state, control, **kwargs)
            if state.global_step == self.step:
                torch.nn.init.constant_(next(model.parameters()), float("nan"))

    with pytest.raises(ValueError, match="training has diverged: after step 3"):
        train_viclsr(model, rows(), tmp_path, callbacks=[Diverged(2)], **SETTINGS)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_ctrl_c_in_the_last_save_waits_for_its_end(tiny_base, tmp_path):
    model = built(tiny_base)
    save = model.save_pretrained

    def interrupted(*args, **kwargs):
        if args[0] == str(tmp_path):
            signal.raise_signal(signal.SIGINT)
        return save(*args, **kwargs)

    model.save_pretrained = interrupted
    with pytest.raises(KeyboardInterrupt):
        train_viclsr(model, rows(), tmp_path, **SETTINGS | {"max_steps": 1})
    assert load(tmp_path).encode("Trời mưa.").shape == (32,)


def test_ctrl_c_twice_stops_at_once(tiny_base, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_viclsr(built(tiny_base), rows(), tmp_path, callbacks=[CtrlC(7, times=2)], **SETTINGS)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-5"]


def test_an_interrupted_model_without_a_checkpoint_does_not_begin_anew_from_where_it_is(tiny_base, tmp_path):
    model = built(tiny_base)
    settings = SETTINGS | {"save_strategy": "no"}
    with pytest.raises(KeyboardInterrupt):
        train_viclsr(model, rows(), tmp_path, callbacks=[CtrlC(7, times=2)], **settings)
    with pytest.raises(ValueError, match="no checkpoint, and the model has been trained"):
        train_viclsr(model, rows(), tmp_path, resume=True, **settings)


def test_vipolyqwen_has_its_settings_in_the_run(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    mixed = Dataset.from_dict(
        {"anchor": ["Trời mưa.", "Trời nắng."], "positive": ["Có mưa.", "Có nắng."], "task": ["instr"] * 2}
    )
    settings = {"max_steps": 1, "gradient_accumulation_steps": 1, "use_cpu": True, "disable_tqdm": True}

    def model(**build):
        torch.manual_seed(0)
        return build_vipolyqwen(base, embedding_dimension=16, **build)

    train_mixed(model(), mixed, tmp_path / "run", **settings)
    with pytest.raises(ValueError, match="files of an earlier run"):
        train_mixed(model(), mixed, tmp_path / "run", **settings)
    for build, change, message in (
        ({}, {"prefix_dropout": 0.5}, "prefix_dropout was 0.0, now is 0.5"),
        ({}, {"learning_rate_mapping": {}}, "learning_rate_mapping was {.*}, now is {}"),
        ({"pooling": "mean"}, {}, "module 1 was 'AttentionPooling', now is 'Pooling'"),
        ({"max_pixels": 56 * 56}, {}, "max_pixels was 401408, now is 3136"),
    ):
        with pytest.raises(ValueError, match=message):
            train_mixed(model(**build), mixed, tmp_path / "run", resume=True, **settings | change)


def test_another_tokenizer_or_processor_is_another_run(tmp_path):
    """Its tokens, or its images, would be others from the checkpoint on, for the same weights."""

    def described(change=lambda backbone: None):
        model = build_vipolyqwen(base, embedding_dimension=8)
        change(model[0])
        arguments = SentenceTransformerTrainingArguments(str(tmp_path), use_cpu=True)
        return describe(model, rows(), arguments, SupConNLILoss(model), [], {})

    def lowercase(backbone):
        backbone.tokenizer.backend_tokenizer.normalizer = Lowercase()

    def darker(backbone):
        backbone.processor.image_processor.image_mean = [0.1, 0.2, 0.3]

    base = save_tiny_qwen2_vl(tmp_path / "base")
    before = described()
    assert not differences(before, described())
    (difference,) = differences(before, described(lowercase))
    assert re.fullmatch(r"Qwen2VLTransformer tokenizer was content \w+, now is content \w+", difference)
    (difference,) = differences(before, described(darker))
    assert difference.startswith("Qwen2VLTransformer processor was ")


@pytest.mark.parametrize("change", [{"lora_alpha": 64}, {"use_rslora": True}, {"lora_dropout": 0.5}], ids=str)
def test_an_adapter_with_other_settings_is_another_run(tiny_base, tmp_path, change):
    """Its weights have the same shapes, and those of the checkpoint would be scaled in another way."""
    peft = pytest.importorskip("peft")

    def described(**settings):
        model = built(tiny_base)
        model.add_adapter(peft.LoraConfig(**{"r": 2, "lora_alpha": 8, "target_modules": ["query"], **settings}))
        arguments = SentenceTransformerTrainingArguments(str(tmp_path), use_cpu=True)
        return describe(model, rows(), arguments, SupConNLILoss(model), [], {})

    assert not differences(described(), described())
    (difference,) = differences(described(), described(**change))
    (name,) = change
    assert difference.startswith(f"adapter default {name} was ")


def test_pictures_count_by_content(tmp_path):
    from PIL import Image

    described = []
    for colour in ("red", "red", "blue"):
        picture = Image.new("RGB", (8, 8), colour)
        data = Dataset.from_dict({"anchor": ["a"], "anchor_image": [picture]})
        described.append(describe_rows(data))
    assert described[0] == described[1] != described[2]


def describe_rows(data):
    from st_vi.recipes.training.manifest import identity_of_rows

    return identity_of_rows(data)["identity"]


def test_differences_name_both_values():
    assert differences({"a": {"identity": "x", "shown": "s"}}, {"a": {"identity": "x", "shown": "t"}}) == []
    assert differences({"a": 1}, {"b": 2}) == ["a was 1, now is None", "b was None, now is 2"]
    assert check_folder("/no/such/folder", {}, resume=True, overwrite=False) is None
    assert callable(describe)
