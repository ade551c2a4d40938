"""Training takes columns by their names: other columns and another order change nothing."""

from __future__ import annotations

import logging

import pytest
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import set_seed

from st_vi import DLELoss, SupConNLILoss, build_viclsr, train_viclsr, train_vipolyqwen
from st_vi.data import check_task_rows, check_triplets
from st_vi.data.task_rows import task_stream
from st_vi.tasks import VIPOLYQWEN_TASKS
from tests.conftest import SENTENCES

ROWS = {
    "anchor": SENTENCES[:4],
    "positive": SENTENCES[2:6],
    "negative": SENTENCES[4:8],
    "weight": [1.0, 0.5, 1.0, 0.25],
}
OTHERS = {"id": ["1", "2", "3", "4"], "source": ["báo"] * 4, "label": ["entailment"] * 4, "genre": [0, 1, 2, 3]}


def trained(base, rows, folder):
    set_seed(0)
    model = build_viclsr(base)
    train_viclsr(model, rows, folder, max_steps=2, per_device_train_batch_size=4, learning_rate=1e-2, use_cpu=True)
    return model.encode(SENTENCES, convert_to_tensor=True)


def shuffled(*names):
    return Dataset.from_dict({name: (ROWS | OTHERS)[name] for name in names})


@pytest.fixture(scope="module")
def expected(tiny_base, tmp_path_factory):
    return trained(tiny_base, Dataset.from_dict(ROWS), tmp_path_factory.mktemp("expected"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        ("id", "anchor", "positive", "negative", "weight"),
        ("source", "negative", "label", "positive", "weight", "genre", "anchor"),
    ],
)
def test_other_columns_and_another_order_change_nothing(tiny_base, tmp_path, expected, names, caplog):
    with caplog.at_level(logging.WARNING):
        assert torch.equal(trained(tiny_base, shuffled(*names), tmp_path / "one"), expected)
    assert "not trained on: " + ", ".join(name for name in names if name in OTHERS) in caplog.text
    parts = {"a": shuffled(*names)}
    assert torch.equal(trained(tiny_base, DatasetDict(parts), tmp_path / "several"), expected)


def test_weights_as_text(tiny_base, tmp_path, expected):
    rows = Dataset.from_dict(ROWS | {"weight": ["1", "0.5", "1.0", " 25e-2"]})
    assert torch.equal(trained(tiny_base, rows, tmp_path), expected)
    whole = Dataset.from_dict(ROWS | {"weight": [1, 0, 1, 1]})
    assert check_triplets(whole)["label"][:] == [1.0, 0.0, 1.0, 1.0]


def test_the_stock_trainer_by_name(tiny_base, tmp_path, expected):
    set_seed(0)
    model = build_viclsr(tiny_base)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        warmup_steps=0.1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
    )
    rows = check_triplets(shuffled("id", "negative", "weight", "positive", "anchor"))
    SentenceTransformerTrainer(model, arguments, train_dataset=rows, loss=SupConNLILoss(model)).train()
    torch.testing.assert_close(model.encode(SENTENCES, convert_to_tensor=True), expected)


def test_negatives_in_the_order_of_their_numbers():
    names = ("negative_10", "negative_2", "positive", "negative", "anchor")
    rows = Dataset.from_dict({name: [name] for name in names})
    assert check_triplets(rows).column_names == ["anchor", "positive", "negative", "negative_2", "negative_10"]


def test_nothing_to_change_is_the_same_object():
    rows = check_triplets(Dataset.from_dict(ROWS))
    assert rows.column_names == ["anchor", "positive", "negative", "label"] and rows["label"][:] == ROWS["weight"]
    assert check_triplets(rows) is rows
    several = DatasetDict({"a": rows})
    assert check_triplets(several) is several


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"negatives": [["a"]] * 4}, "column 'negatives' is no anchor, positive, negative"),
        ({"Negative_1": SENTENCES[:4]}, "column 'Negative_1' is no"),
        ({"anchor_image": ["a.png"] * 4}, "column 'anchor_image' is no"),
        ({"positive_2": SENTENCES[:4]}, r"one positive here, not \['positive', 'positive_2'\]"),
        ({"score": [1.0] * 4}, "column 'score' is no column of triplets: .*rename it to 'weight'"),
        ({"Weight": [1.0] * 4}, "column 'Weight' is not 'weight': rename it, or remove it"),
        ({"Score": [1.0] * 4}, "column 'Score' is not 'score'"),
        ({"weight": ["1", "0,5", "1", "1"]}, "column 'weight', row 1: .*, with a point for the decimals, got '0,5'"),
        ({"weight": [1.0, -0.5, 1.0, 1.0]}, "column 'weight', row 1: expected a number of 0 or more"),
        ({"weight": [1.0, 1.0, None, 1.0]}, "column 'weight', row 2"),
        ({"weight": ["1", "1", "1", "một"]}, "column 'weight', row 3"),
        ({"weight": [1.0, float("nan"), 1.0, 1.0]}, "column 'weight', row 1"),
    ],
)
def test_columns_that_are_none_of_these_are_named(columns, message, tiny_model, tmp_path):
    rows = Dataset.from_dict(ROWS | columns)
    with pytest.raises(ValueError, match=message):
        train_viclsr(tiny_model, rows, tmp_path / "out")
    with pytest.raises(ValueError, match="dataset 'b': .*" + message):
        train_viclsr(tiny_model, DatasetDict({"a": Dataset.from_dict(ROWS), "b": rows}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["negatives", "Negative_1", "positive_images", "negative_image"])
def test_columns_of_mixed_rows_that_would_not_be_trained_on(name):
    rows = {"anchor": ["a"], "positive": ["b"], "task": ["instr"], name: ["c"], "source": ["báo"]}
    with pytest.raises(ValueError, match=f"column '{name}' is no anchor, positive, negative"):
        check_task_rows(Dataset.from_dict(rows))


@pytest.mark.parametrize("name", ["Score", "CLASS", "Anchor_Image", " score", "Teacher_scores"])
def test_columns_of_mixed_rows_in_other_letters(name):
    rows = {"anchor": ["a"], "positive": ["b"], "task": ["instr"], name: [0.5]}
    with pytest.raises(ValueError, match=f"column '{name}' is not '{name.strip().lower()}': rename it, or remove it"):
        check_task_rows(Dataset.from_dict(rows))


def test_columns_of_mixed_rows_that_are_left_out_are_said(caplog):
    rows = [{"anchor": "a", "positive": "b", "task": "instr", "image": "a.png", "source": "báo"}]
    with caplog.at_level(logging.WARNING):
        checked, _ = check_task_rows(rows)
        check_task_rows(checked)  # before training
        assert caplog.text.count("columns that are not trained on: image, source") == 1
        task_stream(Dataset.from_list(rows).to_iterable_dataset(), VIPOLYQWEN_TASKS)
    assert caplog.text.count("columns that are not trained on: image, source") == 2


@pytest.mark.slow
@pytest.mark.parametrize("evaluator", ["loss", {"a": 1}, len, Dataset.from_dict(ROWS), ["loss"]])
def test_an_evaluator_that_is_none(evaluator, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="evaluator must be an evaluator or a list of them, got "):
        train_viclsr(tiny_model, Dataset.from_dict(ROWS), tmp_path / "out", evaluator=evaluator)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("loss", ["supcon", 5, [SupConNLILoss]])
def test_a_loss_that_is_none(loss, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="loss must be a loss, losses by dataset or a function that makes one, got"):
        train_viclsr(tiny_model, Dataset.from_dict(ROWS), tmp_path / "out", loss=loss)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("train", [train_viclsr, train_vipolyqwen])
def test_the_name_of_a_model_is_no_model(train, tmp_path):
    with pytest.raises(ValueError, match=r"model must be .*, such as st_vi\.load\('vi-mini'\), got str"):
        train("vi-mini", Dataset.from_dict(ROWS), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_fails_at_once_leaves_the_folder_free(tiny_model, tmp_path):
    rows, settings = {**ROWS, "weight": [1.0] * 4}, {"max_steps": 1, "per_device_train_batch_size": 4, "use_cpu": True}
    with pytest.raises(ValueError, match="DLELoss needs labels"):
        train_viclsr(tiny_model, rows, tmp_path / "out", loss=DLELoss(tiny_model), **settings)
    train_viclsr(tiny_model, rows, tmp_path / "out", **settings)
    assert (tmp_path / "out" / "modules.json").exists()


def test_the_output_is_a_file(tiny_model, tmp_path):
    (tmp_path / "out").write_text("of mine")
    for settings in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(ValueError, match="out is a file: give a folder for the model"):
            train_viclsr(tiny_model, Dataset.from_dict(ROWS), tmp_path / "out", **settings)
    assert (tmp_path / "out").read_text() == "of mine"


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"num_train_epochs": 0},
        {"num_train_epochs": -1},
        {"per_device_train_batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": -1e-5},
        {"learning_rate": float("nan")},
        {"gradient_accumulation_steps": 0},
        {"learning_rate": "1e-5"},  # as YAML has it
        {"learning_rate_mapping": {"encoder": "1e-5"}},
        {"per_device_train_batch_size": "8"},
        {"max_grad_norm": None},
    ],
    ids=lambda arguments: "".join(f"{name}={value}" for name, value in arguments.items()),
)
def test_arguments_that_train_nothing(arguments, tiny_model, tmp_path):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))}.* must be "):
        train_viclsr(tiny_model, Dataset.from_dict(ROWS), tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["prompts", "router_mapping"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": "hỏi: "}, r"there is no 'query'; the columns are \['anchor', 'positive', 'negative'"),
        ({"a": {"anchor": "hỏi: "}}, "there is no 'a'"),
        ({"one": {"anchors": "hỏi: "}}, r"there is no 'anchors'; the columns are .*, the datasets \['one', 'two'\]$"),
    ],
)
def test_prompts_and_routes_of_what_is_not_there(name, given, message, tiny_model, tmp_path):
    rows = Dataset.from_dict(ROWS)
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        train_viclsr(
            tiny_model, {"one": rows, "two": rows} if "one" in given else rows, tmp_path / "out", **{name: given}
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_prompts_of_columns_and_datasets_that_are_there(tiny_model, tmp_path):
    rows, settings = Dataset.from_dict(ROWS), {"max_steps": 1, "use_cpu": True}
    train_viclsr(tiny_model, rows, tmp_path / "a", prompts={"anchor": "hỏi: "}, **settings)
    prompts = {"one": {"anchor": "hỏi: "}, "two": {"positive": "đáp: "}}
    train_viclsr(tiny_model, {"one": rows, "two": rows}, tmp_path / "b", prompts=prompts, **settings)
