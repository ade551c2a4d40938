"""viPolyQwen on a tiny Qwen2-VL: the right parts, two learning rates, a mixed training that resumes and is saved."""

from __future__ import annotations

import math

import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from st_vi import DLELoss, build_vipolyqwen, load, train_vipolyqwen
from st_vi.data import MixedTaskCollator, split_by_task
from st_vi.evaluation import TaskRetrievalEvaluator
from st_vi.recipes.training.arguments import common_arguments
from st_vi.recipes.training.run import train
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl
from tests.helpers.vipolyqwen import SETTINGS, BestIsStepThree, Interruption

COLOURS = {"red": "đỏ", "blue": "xanh dương", "green": "xanh lá", "yellow": "vàng"}


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny-qwen2-vl")
    save_tiny_qwen2_vl(path)
    return path


@pytest.fixture(scope="module")
def rows():
    """16 rows: half with an image, of three tasks."""
    pictures = [Image.new("RGB", (56, 56), colour) for colour in COLOURS]
    made = []
    for picture, colour in zip(pictures, COLOURS.values(), strict=True):
        made.append(("Màu gì?", picture, f"Màu {colour}.", math.nan, "vqa_single"))
        made.append(("", picture, f"Một nền {colour}.", math.nan, "ocr"))
        made.append((f"Trời {colour}.", None, f"Bầu trời màu {colour}.", 0.9, "text_pair"))
        made.append((f"Áo {colour}.", None, "Tôi nghỉ học.", 0.1, "text_pair"))
    names = ("anchor", "anchor_image", "positive", "score", "task")
    types = (Value("string"), ImageFeature(), Value("string"), Value("float64"), Value("string"))
    columns = {name: list(column) for name, column in zip(names, zip(*made, strict=True), strict=True)}
    return Dataset.from_dict(columns, features=Features(dict(zip(names, types, strict=True))))


def built(path, **settings):
    torch.manual_seed(0)
    return build_vipolyqwen(path, embedding_dimension=24, max_pixels=56 * 56, **settings)


@pytest.mark.parametrize(
    ("settings", "names", "size"),
    [
        ({}, ["Qwen2VLTransformer", "AttentionPooling", "MLPHead", "Normalize"], 24),
        ({"pooling": "mean", "head": "linear"}, ["Qwen2VLTransformer", "Pooling", "MLPHead", "Normalize"], 24),
        ({"pooling": "lasttoken", "head": None}, ["Qwen2VLTransformer", "Pooling", "Normalize"], 64),
    ],
)
def test_parts(tiny_qwen, settings, names, size):
    model = built(tiny_qwen, **settings)
    assert [type(module).__name__ for module in model] == names
    picture = Image.new("RGB", (56, 56), "red")
    assert model.encode(["Xin chào", {"text": "Màu gì?", "image": picture}, picture]).shape == (3, size)


def test_head_and_prompts(tiny_qwen):
    model = built(tiny_qwen)
    head = model[2]
    assert (head.num_layers, head.activation, head.layer_norm) == (2, "gelu", True)
    general, steered = model.encode("Xin chào"), model.encode("Xin chào", prompt_name="ocr")
    assert abs(general - steered).max() > 1e-4
    assert (steered == model.encode("<ocr> Xin chào")).all()
    for setting in ("pooling", "head"):
        with pytest.raises(ValueError, match=setting):
            built(tiny_qwen, **{setting: "max"})


def test_two_learning_rates(tiny_qwen, rows, tmp_path):
    model = built(tiny_qwen)
    trainer = train_vipolyqwen(model, rows, tmp_path, **SETTINGS | {"max_steps": 1, "save_strategy": "no"})
    groups = trainer.optimizer.param_groups
    by_rate = {}
    for group in groups:
        by_rate.setdefault(group["initial_lr"], set()).update(map(id, group["params"]))
    assert set(by_rate) == {1e-3, 2e-6}
    vision = {id(p) for name, p in model.named_parameters() if "visual." in name}
    assert vision and by_rate[2e-6] == vision


def test_an_interrupted_mixed_training_ends_with_the_same_weights(tiny_qwen, rows, tmp_path):
    whole = built(tiny_qwen)
    settings = SETTINGS | {"prefix_dropout": 0.5}
    trainer = train_vipolyqwen(whole, rows, tmp_path / "whole", **settings)
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(logs) == 8 and all(math.isfinite(float(entry["loss"])) for entry in logs)
    assert any("dle/text_pair_score_mse" in entry for entry in logs)
    with pytest.raises(KeyboardInterrupt):
        train_vipolyqwen(built(tiny_qwen), rows, tmp_path / "cut", callbacks=[Interruption()], **settings)
    resumed = build_vipolyqwen(tiny_qwen, embedding_dimension=24, max_pixels=56 * 56)
    train_vipolyqwen(resumed, rows, tmp_path / "cut", resume=True, **settings)
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    inputs = ["Xin chào", rows[0]["anchor_image"]]
    assert (load(tmp_path / "cut").encode(inputs) == whole.encode(inputs)).all()


def test_the_best_checkpoint_brings_pooling_and_head_back(tiny_qwen, rows, tmp_path):
    evaluator = BestIsStepThree()
    model = built(tiny_qwen)
    train_vipolyqwen(model, rows, tmp_path, evaluator, **SETTINGS | {"eval_strategy": "steps", "eval_steps": 3})
    assert "1.attention_context_vector" in evaluator.weights
    for name, value in evaluator.weights.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_it_learns_its_rows(tiny_qwen, rows, tmp_path):
    model = built(tiny_qwen)
    pictures = rows.filter(lambda task: task == "vqa_single", input_columns="task")
    anchors = [{"text": row["anchor"], "image": row["anchor_image"]} for row in pictures]
    evaluator = TaskRetrievalEvaluator(
        anchors, pictures["positive"], pictures["task"], prompt_names={"vqa_single": "vqa_single"}
    )
    settings = SETTINGS | {"num_train_epochs": 15, "save_strategy": "no", "learning_rate_mapping": {}}
    train_vipolyqwen(model, rows, tmp_path, **settings | {"per_device_train_batch_size": 16, "learning_rate": 3e-3})
    assert evaluator(model)["vqa_single_recall@1"] == 1.0


def test_bad_rows_stop_before_the_first_step(tiny_qwen, rows, tmp_path):
    bad = rows.select([2]).map(lambda row: {"score": 3.0})
    with pytest.raises(ValueError, match="column 'score', row 0"):
        train_vipolyqwen(built(tiny_qwen), bad, tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_a_dict_of_data_sets_trains_one_task_a_batch(tiny_qwen, rows, tmp_path):
    seen = []
    collate = MixedTaskCollator.__call__

    def watch(self, features):
        seen.append({row["task"] for row in features})
        return collate(self, features)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MixedTaskCollator, "__call__", watch)
        train_vipolyqwen(built(tiny_qwen), split_by_task(rows), tmp_path, **SETTINGS)
    assert {task for tasks in seen for task in tasks} == {"vqa_single", "ocr", "text_pair"}
    assert all(len(tasks) == 1 for tasks in seen)


def test_a_bad_row_in_a_dict_names_its_data_set(tiny_qwen, rows, tmp_path):
    parts = split_by_task(rows)
    parts["text_pair"] = parts["text_pair"].map(lambda row: {"score": 3.0})
    with pytest.raises(ValueError, match="dataset 'text_pair': column 'score', row 0"):
        train_vipolyqwen(built(tiny_qwen), parts, tmp_path / "out", **SETTINGS)


@pytest.mark.slow
def test_stock_prompts_reach_the_collator(tiny_qwen, rows, tmp_path):
    given = {"anchor": "Hỏi: "}
    trainer = train_vipolyqwen(built(tiny_qwen), rows, tmp_path, prompts=given, **SETTINGS | {"max_steps": 1})
    assert trainer.data_collator.prompts == given


def test_prompts_of_a_collator_stay_where_the_arguments_have_none(tiny_qwen, rows, tmp_path):
    model = built(tiny_qwen)
    collator = MixedTaskCollator(model.preprocess, prompts="Hỏi: ")
    trainer = train(
        model, rows, tmp_path, DLELoss(model), common_arguments, SETTINGS | {"max_steps": 1}, data_collator=collator
    )
    assert trainer.data_collator.prompts == "Hỏi: "
