"""What would stop a training on mixed tasks is found before its first step, and named."""

from __future__ import annotations

import base64
import json
import math
from unicodedata import normalize

import pytest
from datasets import Dataset, DatasetDict, Value
from PIL import Image

from st_vi import CachedDLELoss, DLELoss, Task, build_vipolyqwen, train_vipolyqwen
from st_vi.data import MixedTaskCollator, check_task_rows, combine_rows
from st_vi.data.sources import task_rows
from st_vi.modules import Qwen2VLTransformer
from st_vi.terms import InfoNCE, ListwiseDistillation, NestedOrdinal, SoftLabelKL, TeacherCosine
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

NAN = math.nan
ROW = {"anchor": "Trời mưa.", "positive": "Có mưa.", "task": "instr"}
SETTINGS = {
    "max_steps": 1,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
}


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))


@pytest.fixture
def file(tmp_path):
    """Writes rows beside two images, as JSON Lines or as given."""
    (tmp_path / "rows").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "rows" / "red.png")
    Image.new("RGB", (60, 40), "blue").save(tmp_path / "rows" / "blue.png")

    def write(rows, name="rows.jsonl"):
        path = tmp_path / "rows" / name
        text = rows if isinstance(rows, str) else "".join(json.dumps(ROW | row) + "\n" for row in rows)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def size_of_pictures(rows):
    """Of every row's anchor, as a batch has them."""
    made = MixedTaskCollator(lambda inputs: {"inputs": inputs})(rows.to_list() if len(rows) else [])["anchor_inputs"]
    images = [one.get("image", []) if isinstance(one, dict) else [] for one in made]
    return [[image.size for image in (i if isinstance(i, list) else [i])] for i in images]


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>"])
@pytest.mark.parametrize("column", ["anchor", "positive", "negative", "options"])
def test_a_token_for_pictures_in_a_text_is_named(column, token):
    text = f"Xem {token} này."
    rows = Dataset.from_list(
        [ROW | {"negative": "x", "options": ["y"], column: text if column != "options" else [text]}]
    )
    message = rf"column '{column}', row 0: .*stands for an image"
    with pytest.raises(ValueError, match=message):
        check_task_rows(rows)


@pytest.mark.parametrize("nothing", [None, "", "  ", {"bytes": None, "path": None}, [], [None, ""]])
def test_no_picture_is_no_picture_in_a_batch(nothing):
    row = ROW | {"anchor_image": nothing}
    made = MixedTaskCollator(lambda inputs: {"inputs": inputs})([row])["anchor_inputs"]
    assert made == ["<instr> Trời mưa."]


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_no_picture_is_no_picture_before_training(file, nothing):
    path = file([{"anchor_image": nothing}, {"anchor_image": "red.png"}, {}])
    rows, report = task_rows([path])
    assert report == {"instr": 3}
    assert size_of_pictures(rows) == [[], [(40, 40)], []]


def test_a_column_without_a_picture_is_none():
    for empty in ([NAN, NAN], ["", " "], [None, None]):
        rows = Dataset.from_dict({name: [value] * 2 for name, value in ROW.items()} | {"anchor_image": empty})
        assert "anchor_image" not in check_task_rows(rows)[0].column_names


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_paths_of_either_arrow_type_are_pictures(file, kind):
    folder = file([]).parent
    paths = Dataset.from_dict({"anchor_image": [str(folder / "red.png"), ""]}).cast_column("anchor_image", Value(kind))
    rows = Dataset.from_list([ROW, ROW]).add_column("anchor_image", paths["anchor_image"][:], feature=Value(kind))
    assert size_of_pictures(check_task_rows(rows)[0]) == [[(40, 40)], []]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_a_path_as_datasets_stores_it_is_relative_to_its_file_too(file, tmp_path, monkeypatch, name):
    """Also where the working directory has a file of that name."""
    Image.new("RGB", (28, 28), "green").save(tmp_path / "red.png")
    monkeypatch.chdir(tmp_path)
    whole = {"bytes": (tmp_path / "red.png").read_bytes(), "path": "blue.png"}
    path = file([{"anchor_image": {"bytes": None, "path": "red.png"}}, {"anchor_image": None}])
    if name.endswith("parquet"):  # which can hold bytes, whose path is only a name
        rows = [ROW | {"anchor_image": image} for image in ({"bytes": None, "path": "red.png"}, None, whole)]
        path = path.with_name(name)
        Dataset.from_list(rows).to_parquet(str(path))
    sizes = [[(40, 40)], [], [(28, 28)]]
    assert size_of_pictures(task_rows([path])[0]) == sizes[: 3 if name.endswith("parquet") else 2]


def test_pictures_in_base64_and_with_names_of_another_system(file):
    folder = file([]).parent
    data = (folder / "red.png").read_bytes()
    (folder / normalize("NFD", "đỏ à.png")).write_bytes(data)
    text = base64.b64encode(data).decode()
    stored = [f"data:image/png;base64,{text}", "đỏ à.png", text]
    rows, _ = task_rows([file([{"anchor_image": one} for one in stored])])
    assert [image.size for image in rows["anchor_image"]] == [(40, 40)] * 3
    rows, _ = task_rows([file([{"anchor_image": stored}])])
    assert size_of_pictures(rows) == [[(40, 40)] * 3]


def test_several_pictures_a_row_from_a_file_and_beside_one_with_one(file):
    several = file(
        [{"anchor_image": ["red.png", "blue.png"]}, {"anchor_image": ["red.png"]}, {"anchor_image": None}, {}]
    )
    rows, _ = task_rows([several])
    assert size_of_pictures(rows) == [[(40, 40), (60, 40)], [(40, 40)], [], []]
    one = file([{"anchor_image": "blue.png"}, {"anchor_image": ""}], "one.jsonl")
    assert size_of_pictures(task_rows([one, several])[0])[:3] == [[(60, 40)], [], [(40, 40), (60, 40)]]


def test_several_pictures_a_row_are_trained_on(file, tiny_qwen, tmp_path):
    rows, _ = task_rows([file([{"anchor_image": ["red.png", "blue.png"]}, {"anchor_image": []}, {}])])
    trainer = train_vipolyqwen(build_vipolyqwen(tiny_qwen, 8), rows, tmp_path / "out", **SETTINGS)
    assert trainer.state.global_step == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "rows",
    [
        [{"task": "text_pair", "score": 0.5}, {}],
        [{}, {"task": "text_pair", "score": 1}, {"score": 0.25}, {"score": None}],
        [{"score": None}, {}],
        "anchor,positive,task,score\nMưa.,Có mưa.,text_pair,0.5\nNắng.,Có nắng.,instr,\n",
    ],
    ids=["first with, second without", "int beside float", "none", "csv"],
)
def test_scores_that_some_rows_have(file, rows, tiny_model, tmp_path):
    """The model card compares the values of a column, and None is less than nothing."""
    checked, _ = task_rows([file(rows, "rows.csv" if isinstance(rows, str) else "rows.jsonl")])
    assert checked.features["score"] == Value("float64") and None not in checked["score"][:]
    trainer = train_vipolyqwen(tiny_model, checked, tmp_path / "out", **SETTINGS)
    assert trainer.state.global_step == 1


@pytest.mark.parametrize("score", ["0,5", "cao", 1.5, -0.1])
def test_a_score_that_is_none_is_named_with_its_file(file, score):
    path = file([{"score": "0.5"}, {"score": score}] if isinstance(score, str) else [{}, {"score": score}])
    with pytest.raises(
        ValueError, match=r"rows\.jsonl: column 'score', row 1: expected a (score between 0 and 1|number)"
    ):
        task_rows([path])


def test_more_visual_tokens_than_the_model_reads(file, tiny_qwen, tmp_path):
    model = build_vipolyqwen(tiny_qwen, 8)
    model.max_seq_length = 64
    rows, _ = task_rows([file([{"anchor_image": ["red.png"]}, {"anchor_image": ["red.png"] * 11}])])
    with pytest.raises(ValueError, match=r"column 'anchor_image', row 1: 11 image\(s\) are 66 tokens.* reads 64"):
        train_vipolyqwen(model, rows, tmp_path / "out", **SETTINGS)
    assert not (tmp_path / "out").exists()
    trainer = train_vipolyqwen(model, rows, tmp_path / "out", bad_image="skip", **SETTINGS)
    assert len(trainer.train_dataset) == 1


def test_check_length_lets_pass_what_the_model_takes(tiny_qwen):
    backbone = Qwen2VLTransformer(str(tiny_qwen))
    picture = Image.new("RGB", (40, 40), "red")
    for count in range(1, 4):
        backbone.max_seq_length = 6 * count  # four visual tokens, a start and an end
        backbone.check_length([picture.size] * count)
        ids = backbone.preprocess([{"text": "a", "image": [picture] * count}])["input_ids"]
        assert (ids == backbone.processor.image_token_id).sum() == 4 * count
        backbone.max_seq_length = 6 * count - 2
        with pytest.raises(ValueError, match="max_seq_length"):
            backbone.check_length([picture.size] * count)


def test_pictures_for_a_model_that_reads_none(file, tiny_model, tmp_path):
    rows, _ = task_rows([file([{}, {"anchor_image": "red.png"}])])
    with pytest.raises(ValueError, match="column 'anchor_image', row 1: the model reads no images"):
        train_vipolyqwen(tiny_model, rows, tmp_path / "out", **SETTINGS)


def test_further_positives_are_not_taken_for_negatives(tiny_model, tmp_path):
    rows = Dataset.from_list([ROW | {"positive_2": "Đang mưa.", "negative": "Trời nắng."}] * 2)
    for loss in (DLELoss(tiny_model), CachedDLELoss(tiny_model), DLELoss(tiny_model, num_positives=3)):
        with pytest.raises(ValueError, match=r"2 column\(s\) of positives.*num_positives=2"):
            train_vipolyqwen(tiny_model, rows, tmp_path / "out", loss=loss, **SETTINGS)
    trainer = train_vipolyqwen(tiny_model, rows, tmp_path / "out", **SETTINGS)
    assert trainer.loss.num_positives == 2


@pytest.mark.parametrize(
    ("term", "columns", "message"),
    [
        (SoftLabelKL(), {"teacher_scores": [1.0]}, "there is only one: add a column 'negative'"),
        (ListwiseDistillation(), {"negative": "a", "teacher_scores": [1.0, 0.0]}, "two"),
        (
            NestedOrdinal(levels=(0.2, 0.5, 0.8), shares=(0.8, 0.5, 0.2)),
            {"score": 0.5},
            "divisible by the 3 levels, got 32",
        ),
        (TeacherCosine(), {"anchor_teacher": [1.0, 2.0]}, "2"),
    ],
    ids=lambda value: type(value).__name__ if hasattr(value, "weight") else "",
)
def test_what_a_term_misses_is_missed_before_training(tiny_model, tmp_path, term, columns, message):
    rows = DatasetDict(
        good=Dataset.from_list([ROW | {"task": "good"}] * 2),
        bad=Dataset.from_list([ROW | {"task": "bad"} | columns] * 2),
    )
    loss = DLELoss(tiny_model, [Task("good", "", (InfoNCE(),)), Task("bad", "", (term,))])
    with pytest.raises(ValueError, match=f"dataset 'bad': .*{message}"):
        train_vipolyqwen(tiny_model, rows, tmp_path / "out", loss=loss, **SETTINGS)
    assert not (tmp_path / "out").exists()


def test_teacher_vectors_of_two_sizes_are_named():
    rows = Dataset.from_list([ROW | {"anchor_teacher": [1.0, 2.0]}, ROW | {"anchor_teacher": [1.0]}])
    with pytest.raises(ValueError, match=r"column 'anchor_teacher', row 1: expected 2 finite numbers, got \[1\.0\]"):
        check_task_rows(rows)


def test_teacher_scores_that_fp32_cannot_hold_are_named():
    rows = Dataset.from_list([ROW | {"teacher_scores": [0.0]}, ROW | {"teacher_scores": [1e300]}])
    with pytest.raises(ValueError, match="column 'teacher_scores', row 1: expected a smaller number"):
        check_task_rows(rows)


def test_sets_with_the_same_candidates_are_combined_with_them():
    first = Dataset.from_list([ROW | {"negative": "a", "teacher_scores": [1.0, 0.0], "id": 1}])
    second = Dataset.from_list([ROW | {"negative": "b", "teacher_scores": [1.0, 0.5], "score": None}])
    rows = combine_rows(first, second)
    assert rows.column_names == ["anchor", "positive", "negative", "score", "teacher_scores", "task"]
    assert rows["negative"][:] == ["a", "b"] and all(map(math.isnan, rows["score"]))
    with pytest.raises(ValueError, match=r"columns \['negative'\] are in some sets alone"):
        combine_rows(first, Dataset.from_list([ROW]))
