"""Rows of mixed tasks: what becomes of them in a batch, in the stock trainer, and what stops them before."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import pytest
import torch
from datasets import Dataset, DatasetDict
from datasets import Image as ImageFeature
from PIL import Image
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from st_vi import DLELoss, MixedTaskCollator, Task
from st_vi.data import check_task_rows, sample_nli, sample_sts
from st_vi.data.collator import model_input
from st_vi.losses import DLEMonitor
from st_vi.losses.columns import content_ids
from st_vi.terms import InfoNCE, Term
from tests.conftest import SENTENCES

NAN = float("nan")
TEXTS = {"positive_2": "Một.", "negative_1": "Hai.", "negative_2": "Ba."}
RED = Image.new("RGB", (8, 6), "red")


def as_png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def collate(rows, **settings):
    return MixedTaskCollator(lambda inputs: {"inputs": inputs}, **settings)(rows)


def row(task="instr", **fields):
    return {"anchor": "Hỏi?", "positive": "Đáp.", "task": task} | fields


def test_tasks_and_scores_become_labels():
    label = collate([row("text_pair", score=0.25), row("vqa_multi", score=None), row("ocr")])["label"]
    assert label[:, 0].tolist() == [0, 4, 2]
    assert label[0, 1] == 0.25 and label[1:, 1].isnan().all()


def test_further_candidates_and_teacher_scores():
    rows = [
        row(negative_2="C", negative_1="B", positive_2="A", teacher_scores=[1, 0.5, 0, None]),
        row(**TEXTS, teacher_scores=None),
    ]
    batch = collate(rows, prefix_side="anchor")
    assert list(batch) == ["label", *(f"{c}_inputs" for c in ("anchor", "positive", *TEXTS))]
    assert batch["negative_2_inputs"] == ["C", "Ba."]
    torch.testing.assert_close(
        batch["label"], torch.tensor([[1, NAN, 1, 0.5, 0, NAN], [1, *[NAN] * 5]]), equal_nan=True
    )
    with pytest.raises(ValueError, match=r"teacher_scores.*'negative_2'\], got \[1\]"):
        collate([rows[0] | {"teacher_scores": [1]}])
    with pytest.raises(ValueError, match="neither text nor image nor video in 'negative_1'"):
        collate([row(**TEXTS | {"negative_1": None})])


@pytest.mark.parametrize(("scores", "got"), [([1.0], r"\[1.0\]"), (None, "None"), ([1.0, NAN], "nan")])
def test_teacher_scores_are_checked_before_training(scores, got):
    class Listwise(Term):
        needs_teacher = True

        def __call__(self, pairs):
            return pairs.own_cosine

    rows = Dataset.from_list([row(negative="Sai.", task="x") | {"teacher_scores": s} for s in ([1.0, 0.0], scores)])
    good, _ = check_task_rows(rows.select([0]), [Task("x", "", (Listwise(),))])
    assert good["teacher_scores"][:] == [[1.0, 0.0]]
    with pytest.raises(ValueError, match=f"column 'teacher_scores', row 1: expected 2 numbers.*{got}"):
        check_task_rows(rows, [Task("x", "", (Listwise(),))])


@pytest.mark.parametrize(
    ("side", "anchor", "positive"),
    [("anchor", "<instr> Hỏi?", "Đáp."), ("both", "<instr> Hỏi?", "<instr> Đáp."), ("none", "Hỏi?", "Đáp.")],
)
def test_prefix_sides(side, anchor, positive):
    batch = collate([row()], prefix_side=side)
    assert (batch["anchor_inputs"], batch["positive_inputs"]) == ([anchor], [positive])


def test_prefix_dropout_drops_on_both_sides_of_the_same_rows_every_time():
    rows = [row(anchor=f"Câu {i}.", positive=f"Đáp {i}.") for i in range(1000)]
    batch = collate(rows, prefix_side="both", prefix_dropout=0.3)
    dropped = [text.startswith("Câu") for text in batch["anchor_inputs"]]
    assert dropped == [text.startswith("Đáp") for text in batch["positive_inputs"]]
    assert 250 < sum(dropped) < 350
    again = collate(rows[::-1], prefix_side="both", prefix_dropout=0.3)["anchor_inputs"]
    assert again[::-1] == batch["anchor_inputs"]
    assert not any(text.startswith("Câu") for text in collate(rows)["anchor_inputs"])
    assert all(text.startswith("Câu") for text in collate(rows, prefix_dropout=1.0)["anchor_inputs"])


@pytest.mark.parametrize("form", ["pil", "path", "bytes", "arrow"])
def test_images_in_every_form(form, tmp_path):
    RED.save(tmp_path / "red.png")
    value = {
        "pil": RED,
        "path": str(tmp_path / "red.png"),
        "bytes": as_png(RED),
        "arrow": {"bytes": as_png(RED), "path": None},
    }[form]
    made = model_input(row(anchor_image=value), "anchor", "<ocr>")
    assert made["text"] == "<ocr> Hỏi?" and made["image"].tobytes() == RED.tobytes()


def test_text_image_or_both():
    assert model_input(row(anchor_image=RED, anchor=None), "anchor").size == (8, 6)
    assert model_input(row(anchor_image=RED, anchor=""), "anchor", "<ocr>")["text"] == "<ocr>"
    assert len(model_input(row(anchor_image=[RED, RED]), "anchor")["image"]) == 2
    assert model_input(row(anchor_image=None), "anchor") == "Hỏi?"
    with pytest.raises(ValueError, match="neither text nor image"):
        model_input(row(anchor=""), "anchor")


def test_bad_settings():
    with pytest.raises(ValueError, match="prefix_side"):
        collate([row()], prefix_side="left")
    with pytest.raises(ValueError, match="prefix_dropout"):
        collate([row()], prefix_dropout=1.5)
    with pytest.raises(ValueError, match=r"unknown task\(s\).*'dịch'"):
        collate([row("dịch")])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"task": "dịch"}, r"column 'task', row 1: expected one of .*got 'dịch'"),
        ({"task": "text_pair", "score": None}, r"column 'score', row 1: expected a score between 0 and 1, got None"),
        ({"task": "text_pair", "score": 4.5}, r"column 'score', row 1.*got 4.5"),
        ({"task": "text_pair", "score": math.nan}, r"column 'score', row 1.*got nan"),
        ({"positive": " "}, r"column 'positive', row 1: expected text, an image or a video"),
        ({"anchor_image": b"not an image"}, r"column 'anchor_image', row 1: cannot read the image"),
        ({"anchor_image": as_png(Image.new("RGB", (64, 64)))[:-30]}, r"column 'anchor_image', row 1: cannot read"),
        ({"anchor_image": as_png(Image.new("RGB", (999, 1)))}, r"column 'anchor_image', row 1.*aspect ratio"),
    ],
)
def test_bad_rows_are_named(fields, message):
    good = row(score=1.0, anchor_image=as_png(RED))
    with pytest.raises(ValueError, match=message):
        check_task_rows(Dataset.from_list([good, good | fields]))


@pytest.mark.parametrize(("score", "message"), [("0,9", ", with a point for the decimals"), ("0_1", ""), (True, "")])
def test_what_looks_like_a_number(score, message):
    with pytest.raises(ValueError, match=f"column 'score', row 0: expected a number{message}, got {score!r}"):
        check_task_rows([row("text_pair", score=score)])


def test_tasks_are_tasks():
    with pytest.raises(ValueError, match=r"tasks must be a list of .*Task, got 'ocr'"):
        check_task_rows([row()], tasks="ocr")


def test_bad_images_can_be_skipped_and_are_counted():
    rows = [row(anchor_image={"bytes": data, "path": None}) for data in (as_png(RED), b"broken", as_png(RED))]
    features = Dataset.from_list(rows).features | {"anchor_image": ImageFeature()}
    dataset = Dataset.from_list(rows, features=type(Dataset.from_list(rows).features)(features))
    kept, report = check_task_rows(dataset, bad_image="skip")
    assert len(kept) == 2 and report == {"instr": 2, "skipped for a bad image": 1}
    assert kept[1]["anchor_image"].size == (8, 6)
    with pytest.raises(ValueError, match="missing column 'task'"):
        check_task_rows(dataset.remove_columns("task"))


@pytest.fixture
def rows():
    """24 rows of three tasks, without images."""
    sts, nli = sample_sts().select(range(8)), sample_nli().select(range(8))
    texts = [
        *(row("text_pair", anchor=r["sentence1"], positive=r["sentence2"], score=r["score"] / 5) for r in sts),
        *(row("instr", anchor=r["premise"], positive=r["hypothesis"], score=math.nan) for r in nli),
        *(row("vqa_multi", anchor=text, positive=text[::-1], score=math.nan) for text in SENTENCES),
    ]
    return Dataset.from_list(texts).select_columns(["anchor", "positive", "score", "task"])


def trainer(model, dataset, loss, folder, **arguments):
    defaults = {"max_steps": 4, "per_device_train_batch_size": 8, "logging_steps": 1, "learning_rate": 1e-3}
    args = SentenceTransformerTrainingArguments(
        folder, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", **defaults | arguments
    )
    collator = MixedTaskCollator(model.preprocess)
    return SentenceTransformerTrainer(model, args, train_dataset=dataset, loss=loss, data_collator=collator)


def test_the_stock_trainer_logs_every_component(tiny_model, rows, tmp_path):
    check_task_rows(rows)
    loss = DLELoss(tiny_model)
    run = trainer(tiny_model, rows, loss, str(tmp_path))
    run.add_callback(DLEMonitor(loss))
    before = [parameter.clone() for parameter in tiny_model[2].parameters()]
    run.train()
    assert any((old != new).any() for old, new in zip(before, tiny_model[2].parameters(), strict=True))
    logs = [entry for entry in run.state.log_history if "loss" in entry]
    names = [name for task in loss.tasks for name in task.components]
    for entry in logs:
        assert set(names) <= set(entry)
        assert any(name.startswith("dle/") for name in entry)
        assert sum(float(entry[name]) for name in names) == pytest.approx(float(entry["loss"]), abs=1e-3)


def test_a_data_set_for_each_task_gives_the_same_loss_on_the_same_rows(tiny_model, rows, tmp_path):
    parts = DatasetDict({name: rows.filter(lambda r, n=name: r["task"] == n) for name in ("text_pair", "instr")})
    losses = {name: DLELoss(tiny_model) for name in parts}
    run = trainer(tiny_model, parts, losses, str(tmp_path))
    run.train()
    assert len([entry for entry in run.state.log_history if "loss" in entry]) == 4

    collator, whole = MixedTaskCollator(tiny_model.preprocess), rows.select(range(16))

    def components(dataset):
        batch = collator(dataset.to_list())
        columns = [
            {key.removeprefix(f"{name}_"): value for key, value in batch.items() if key.startswith(f"{name}_")}
            for name in ("anchor", "positive")
        ]
        ids = content_ids(columns)
        with torch.no_grad():
            embeddings = [tiny_model(column)["sentence_embedding"] for column in columns]
        return DLELoss(tiny_model).compute_loss_from_embeddings(embeddings, batch["label"], ids)

    mixed, single = components(whole), [components(part) for part in parts.values()]
    for name, value in mixed.items():
        torch.testing.assert_close(value, sum(part[name] for part in single) / 2, msg=name)  # 8 of 16 rows each


def test_stock_samplers_take_tasks_for_labels(tiny_model, tmp_path):
    tasks = ["ocr", "instr"] * 4
    rows = Dataset.from_dict({"anchor": SENTENCES, "positive": SENTENCES[::-1], "task": tasks, "score": [NAN] * 8})
    for sampler in ("no_duplicates", "group_by_label"):
        arguments = SentenceTransformerTrainingArguments(
            str(tmp_path), per_device_train_batch_size=4, batch_sampler=sampler, report_to="none", use_cpu=True
        )
        collator = MixedTaskCollator(tiny_model.preprocess)
        trainer = SentenceTransformerTrainer(
            tiny_model, arguments, train_dataset=rows, loss=DLELoss(tiny_model), data_collator=collator
        )
        labels = [batch["label"][:, 0] for batch in trainer.get_train_dataloader()]
        assert [len(label) for label in labels] == [4, 4]
    assert all((label == 2).sum() == 2 for label in labels)


def test_stock_prompts_and_routes_of_columns_and_data_sets():
    def preprocess(inputs, **settings):
        return {"inputs": inputs, "settings": settings}

    def settings(collator, **fields):
        batch = collator([row() | fields])
        return batch["anchor_settings"], batch["positive_settings"], batch.get("anchor_task")

    assert settings(MixedTaskCollator(preprocess)) == ({}, {}, None)
    assert settings(MixedTaskCollator(preprocess, prompts="Hỏi: ")) == (*({"prompt": "Hỏi: "},) * 2, None)
    of_sets = MixedTaskCollator(preprocess, prompts={"qa": {"anchor": "Hỏi: "}}, router_mapping={"anchor": "query"})
    assert settings(of_sets, dataset_name="qa") == ({"prompt": "Hỏi: ", "task": "query"}, {}, "query")
    assert settings(of_sets, dataset_name="other") == ({"task": "query"}, {}, "query")
    with pytest.raises(ValueError, match="without prompts, router_mapping and max_length"):
        MixedTaskCollator(SentenceTransformer.preprocess, prompts="x", lazy_images=True)


def test_tasks_are_the_second_argument():
    """Not the columns of labels, which are that of the stock collator."""
    tasks = [Task("tra_loi", "<tra_loi>", (InfoNCE(),))]
    collator = MixedTaskCollator(lambda inputs, **_: {"inputs": inputs}, tasks, "both", 0.0)
    for each in (collator, replace(collator, max_length=9)):
        batch = each([{"task": "tra_loi", "anchor": "Ai?", "positive": "Bà Năm."}])
        assert batch["anchor_inputs"] == ["<tra_loi> Ai?"] and batch["positive_inputs"] == ["<tra_loi> Bà Năm."]
    assert collator.valid_label_columns == ["class", "task", "score", "teacher_scores"]
    assert replace(collator, max_length=9) != collator == replace(collator)
    with pytest.raises(TypeError, match="prefixes"):
        MixedTaskCollator(str, prefixes=())
