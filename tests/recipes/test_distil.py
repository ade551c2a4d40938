"""Distilling an encoder: what the student starts as, that the stages reach the teacher, resume, and what is refused."""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from typer.testing import CliRunner

from st_vi import trim_vocabulary
from st_vi.__main__ import app
from st_vi.data import sample_nli, sample_retrieval
from st_vi.data.negatives.sampling import ClusterBatchSampler
from st_vi.recipes.distil import encoder
from st_vi.recipes.distil.draw import draw_questions, draw_texts
from st_vi.recipes.distil.encoder import _varied, distill_encoder
from st_vi.recipes.distil.held_out import Distilled
from st_vi.recipes.distil.stages import STAGES
from st_vi.recipes.distil.student import small_student
from st_vi.recipes.sight.text import draw_paragraphs
from st_vi.text import strip_diacritics
from tests.conftest import SENTENCES
from tests.helpers.small_encoder import change_weights, small_encoder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Two layers, with pieces for every text of the samples."""
    path, base = tmp_path_factory.mktemp("teacher"), tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    small_encoder(
        [*SENTENCES, *sample_nli()["premise"], *sample_nli()["hypothesis"], "Ai? “” !"], base, width=32, layers=2
    )
    modules = [Transformer(str(base)), Pooling(32, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(path))
    return path


@pytest.fixture(scope="module")
def documents() -> Dataset:
    """Paragraphs of five premises each, under made-up titles."""
    premises = list(dict.fromkeys(sample_nli("train")["premise"]))
    return Dataset.from_list(
        [{"title": f"Chuyện số {i // 10}", "text": " ".join(premises[i : i + 5])} for i in range(0, 300, 5)]
    )


QUICK = {
    "num_texts": 120,
    "num_questions": 24,
    "max_pieces": 700,
    "held_out": 0.2,
    "prompt": "",
    "num_contradictions": 20,
    "layers": (1,),
}


@pytest.fixture(scope="module")
def batches() -> list[tuple[list[str], int, int]]:
    """Of each part of the run's stages: its tasks, its rows, and the number of clusters that its batches come from."""
    return []


@pytest.fixture(scope="module")
def run(teacher, documents, batches, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "small"
    said = []

    def sampler(rows, *args, clusters, **settings):
        batches.append((sorted(set(rows.with_format(None)["task"])), len(rows), len(set(clusters.tolist()))))
        return ClusterBatchSampler(rows, *args, clusters=clusters, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("st_vi.recipes.distil.encoder.ClusterBatchSampler", sampler)
        model = distill_encoder(
            teacher, documents, output, nli=sample_nli("train").select(range(90)), progress=said.append, **QUICK
        )
    return model, output, said


def test_batches_have_one_task_and_questions_share_documents(run, batches):
    tasks = ["sentences", "retrieval", "nli"]
    assert [names for names, _, _ in batches] == [[task] for task in [*tasks, *tasks]]
    for task, first, again in zip(tasks, batches[:3], batches[3:], strict=True):
        assert again[1] == first[1] * (1 if task == "sentences" else 2)  # repeated in the last stage
        for _, _, clusters in (first, again):
            assert clusters > 5 if task == "retrieval" else clusters == 1


def records(output):
    return [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]


def test_the_folder_tells_the_story(run):
    model, output, said = run
    log = records(output)
    stages = [record["stage"] for record in log if record.get("finished")]
    assert stages == ["sentences", "retrieval", "nli", "more"] and log[0]["stage"] == "trim"
    figures = [record for record in log if "recall" in record]
    assert len(figures) == 5  # before, and after each stage
    assert {"teacher_cosine", "teacher_cosine_bare", "recall_bare", "triplet_accuracy", "nli_spearman"} <= set(
        figures[0]
    )
    assert "cutting the vocabulary" in said
    for folder in (output, output / "stages" / "more"):
        again = SentenceTransformer(str(folder), device="cpu")  # stock modules only
        torch.testing.assert_close(again.encode(SENTENCES), model.encode(SENTENCES))
    assert len(model[0].model.encoder.layer) == 1
    vectors = {folder.name for folder in (output / "teacher").iterdir() if (folder / "manifest.json").exists()}
    pairs = {f"{task}-{column}" for task in ("retrieval", "nli") for column in ("anchor", "positive")}
    assert vectors == {name for task in ("sentences-anchor", *pairs) for name in (task, f"more-{task}")}


@pytest.mark.parametrize("task", ["sentences", "retrieval", "nli"])
def test_the_last_stage_draws_anew(run, task):
    _, output, _ = run
    first, last = (
        Dataset.from_parquet(f"{output}/teacher/{name}-anchor/*.parquet", cache_dir=str(output))["embedding"][:]
        for name in (task, f"more-{task}")
    )
    assert len(first) == len(last) and {tuple(vector) for vector in first} != {tuple(vector) for vector in last}


def test_a_stage_is_averaged_with_the_student_before_it(teacher, documents, tmp_path):
    """Of weight 1, it changes nothing."""
    stage = replace(STAGES[0], keep=1.0, batch_size=16, learning_rate=2e-3)
    output = tmp_path / "out[1]"  # a name is no pattern
    model = distill_encoder(teacher, documents, output, stages=[stage], **QUICK | {"num_texts": 60})
    start, end = (record for record in records(output) if "teacher_cosine" in record)
    assert {name: end[name] for name in start if name not in ("stage", "seconds")} == {
        name: value for name, value in start.items() if name not in ("stage", "seconds")
    }
    assert len(model[0].model.encoder.layer) == 1


def test_a_second_call_resumes_and_changes_nothing(run, teacher, documents):
    model, output, _ = run
    options = {"nli": sample_nli("train").select(range(90)), **QUICK}
    with pytest.raises(ValueError, match="has an earlier run: use resume"):
        distill_encoder(teacher, documents, output, **options)
    said = []
    again = distill_encoder(teacher, documents, output, resume=True, progress=said.append, **options)
    assert said[1:] == [f"{stage}: done before" for stage in ("sentences", "retrieval", "nli", "more")]
    torch.testing.assert_close(again.encode(SENTENCES), model.encode(SENTENCES))


def test_a_kill_in_the_middle_of_a_line_of_the_log(run, teacher, documents, tmp_path):
    shutil.copytree(run[1], output := tmp_path / "run")
    whole = (output / "log.jsonl").read_text()
    (output / "log.jsonl").write_text(whole + '{"stage": "sent')
    options = {"nli": sample_nli("train").select(range(90)), **QUICK}
    distill_encoder(teacher, documents, output, resume=True, **options)
    assert (output / "log.jsonl").read_text().startswith(whole)
    assert all(map(json.loads, (output / "log.jsonl").read_text().splitlines()))


def test_the_folder_of_a_training_is_not_taken(teacher, documents, tmp_path):
    (tmp_path / "training_run.json").write_text('{"seed": 1}')
    options = {"nli": sample_nli("train").select(range(90)), **QUICK}
    with pytest.raises(ValueError, match="has an earlier run"):
        distill_encoder(teacher, documents, tmp_path, **options)
    assert (tmp_path / "training_run.json").read_text() == '{"seed": 1}'


def test_a_run_that_was_faster(teacher, documents, tmp_path, monkeypatch):
    """It ends between the look at the folder and the lock on it."""

    @contextmanager
    def late(folder):
        (tmp_path / "log.jsonl").write_text("")
        yield

    monkeypatch.setattr(encoder, "alone_in", late)
    options = {"nli": sample_nli("train").select(range(90)), **QUICK}
    with pytest.raises(ValueError, match="has an earlier run"):
        distill_encoder(teacher, documents, tmp_path, **options)


def test_another_run_is_not_resumed(run, teacher, documents, tmp_path):
    _, output, _ = run
    options = {"nli": sample_nli("train").select(range(90)), **QUICK}
    others = {
        "seed was 0, now is 1": {"seed": 1},
        "layers was": {"layers": [0, 1]},
        "nli was": {"nli": sample_nli("train").select(range(60))},
        "max_pieces was": {"max_pieces": 99},
    }
    frame = documents.to_pandas()  # the same rows
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    for message, other in others.items():
        with pytest.raises(ValueError, match=f"has a different run: {message}"):
            distill_encoder(teacher, frame, output, resume=True, **options | other)
    changed = shutil.copytree(teacher, tmp_path / "teachers" / teacher.name)
    change_weights(changed)  # of the same name
    with pytest.raises(ValueError, match="has a different run: teacher was"):
        distill_encoder(changed, frame, output, resume=True, **options)
    assert before == {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with pytest.raises(ValueError, match="missing column"):
        distill_encoder(teacher, documents.remove_columns("title"), tmp_path / "new", **options)
    for shares in ([0.0], [float("nan")], [-1.0]):
        with pytest.raises(ValueError, match="shares must be numbers of 0 or more, and not all 0"):
            distill_encoder(teacher, documents, tmp_path / "new", shares=shares, **options)
    assert not (tmp_path / "new").exists()


def test_the_teacher_of_other_rows_is_refused(run, teacher, documents, tmp_path):
    _, output, _ = run
    (tmp_path / "teacher").mkdir()
    (output / "teacher" / "sentences-anchor").rename(tmp_path / "teacher" / "sentences-anchor")
    try:
        with pytest.raises(ValueError, match="sentences-anchor"):
            distill_encoder(teacher, documents, tmp_path, nli=sample_nli("train"), seed=5, **QUICK)
    finally:
        (tmp_path / "teacher" / "sentences-anchor").rename(output / "teacher" / "sentences-anchor")


def test_more_steps_come_nearer_to_the_teacher(teacher, documents, tmp_path):
    stage = replace(STAGES[0], epochs=8, batch_size=16, learning_rate=2e-3)
    distill_encoder(teacher, documents, tmp_path / "out", stages=[stage], **QUICK | {"num_texts": 60})
    start, end = (record for record in records(tmp_path / "out") if "teacher_cosine" in record)
    for name in ("teacher_cosine", "teacher_cosine_bare"):
        assert 1 - end[name] < 0.75 * (1 - start[name])


def test_the_student_begins_where_the_teacher_stands(teacher):
    model = SentenceTransformer(str(teacher), device="cpu")
    same = small_student(model, (0, 1))
    vectors = torch.nn.functional.normalize(model.encode(SENTENCES, convert_to_tensor=True), dim=1)
    torch.testing.assert_close(same.encode(SENTENCES, convert_to_tensor=True), vectors)
    assert len(model[0].model.encoder.layer) == 2
    one = small_student(model, (1,))
    torch.testing.assert_close(
        one[0].model.encoder.layer[0].output.dense.weight, model[0].model.encoder.layer[1].output.dense.weight
    )
    prompt = "Trời mưa"
    count = len(model.tokenizer.encode(prompt, add_special_tokens=False))
    shifted = small_student(model, (0, 1), prompt)
    old, new = (m[0].model.embeddings.position_embeddings.weight for m in (model, shifted))
    torch.testing.assert_close(new[:3], old[:3])  # <pad>'s two and that of <s>
    torch.testing.assert_close(new[3 : 3 + 20], old[3 + count : 23 + count])
    with pytest.raises(ValueError, match=r"layers 0 to 1, got \[2, 5\]"):
        small_student(model, (2, 5))


def test_variants_of_a_row_are_the_same_each_time():
    row = {"anchor": SENTENCES[0], "positive": SENTENCES[1]}
    made, again = ([_varied(row, number, part=STAGES[1].parts[0], seed="0") for number in range(400)] for _ in "ab")
    assert made == again
    bare = strip_diacritics(SENTENCES[0])
    share = sum(m["anchor"].lower() == bare.lower() for m in made) / 400
    assert 0.4 < share < 0.6 and set(made[0]) == {"anchor", "positive"}
    assert sum(m["positive"] != SENTENCES[1] for m in made) / 400 < 0.2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": (1, 7)}, r"the teacher has layers 0 to 1, got \[1, 7\]"),
        ({"layers": (0, 0)}, r"layers must be different ones in ascending order, got \[0, 0\]"),
        ({"layers": (1, 0)}, r"layers must be different ones in ascending order, got \[1, 0\]"),
        ({"shares": [1, 2]}, "there are 1 sets of documents and 2 shares"),
        ({"max_pieces": 20}, "max_pieces=20 is less"),
    ],
)
def test_bad_settings_before_any_training(change, message, teacher, documents, tmp_path):
    with pytest.raises(ValueError, match=message):
        distill_encoder(teacher, documents, tmp_path / "out", **{**QUICK, **change})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"nli": sample_nli("train").filter(lambda row: row["label"] != "contradiction")},
            "no premise of the NLI rows",
        ),
        (
            {"documents": Dataset.from_list([{"title": f"Chợ {n}", "text": SENTENCES[0]} for n in range(40)])},
            "no paragraph of the documents gives a question: those that do have at least 150 characters",
        ),
    ],
)
def test_rows_of_later_stages_are_made_before_any_training(change, message, teacher, documents, tmp_path):
    """The folder is then free for another run."""
    given = {"documents": documents} | QUICK | change
    with pytest.raises(ValueError, match=message):
        distill_encoder(teacher, output=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


def test_documents_of_another_language(teacher, tmp_path):
    rows = Dataset.from_list(
        [
            {"title": f"Page {i}", "text": f"The weather was rainy on day {i}, and the streets were flooded."}
            for i in range(50)
        ]
    )
    with pytest.raises(ValueError, match=r"the texts are not Vietnamese: [^(]*$"):  # with no hint at options of others
        distill_encoder(teacher, rows, tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_letters_that_the_student_cannot_write(teacher, documents, tmp_path):
    strange = documents.map(lambda row: {"text": row["text"].replace("a", "ꙮ")})
    with pytest.raises(
        ValueError, match=r"\d+ of \d+ texts have letters that the student's vocabulary cannot write: '"
    ):
        distill_encoder(teacher, strange, tmp_path / "out", **QUICK)


def test_figures_without_a_teacher(documents, teacher):
    measure = Distilled([documents], count=20)
    assert len(measure.queries) == len(measure.right) <= 20 and measure.targets is None
    figures = measure(SentenceTransformer(str(teacher), device="cpu"))
    assert list(figures) == ["recall", "recall_bare"]


def test_the_cut_teacher_keeps_its_vectors(teacher, documents):
    model = SentenceTransformer(str(teacher), device="cpu")
    before = model.encode(SENTENCES, convert_to_tensor=True)
    trim_vocabulary(model, documents["text"], keep=SENTENCES)
    torch.testing.assert_close(model.encode(SENTENCES, convert_to_tensor=True), before)


def test_the_command(monkeypatch, documents, tmp_path):
    """It hands on what it was given, beside the package's own rows."""
    given = {}
    monkeypatch.setattr("st_vi.recipes.distil.encoder.distill_encoder", lambda *args, **kw: given.update(kw, args=args))
    documents.to_json(tmp_path / "documents.jsonl", force_ascii=False)
    rows = [{"premise": "Trời mưa to.", "hypothesis": h, "label": i} for i, h in enumerate(["Trời mưa.", "Trời nắng."])]
    nli = Dataset.from_list(rows)
    nli.to_json(tmp_path / "nli.jsonl")
    nli.rename_column("premise", "câu một").to_json(tmp_path / "named_nli.jsonl", force_ascii=False)
    documents.rename_columns({"title": "tựa", "text": "nội dung"}).to_json(
        tmp_path / "named_documents.jsonl", force_ascii=False
    )
    arguments = ["--teacher", "large", "--documents", str(tmp_path / "documents.jsonl"), "--output", str(tmp_path)]
    arguments += ["--nli", str(tmp_path / "nli.jsonl"), "--label", "0=entailment", "--label", "1=contradiction"]
    result = CliRunner().invoke(app, ["distill", "encoder", *arguments, "--layers", "1,3", "--num-texts", "60"])
    assert result.exit_code == 0 and "results of each stage are in" in result.stdout, result.output
    assert given["args"][0] == "large" and given["args"][1][0].column_names == ["title", "text"]
    assert given["layers"] == [1, 3] and given["num_texts"] == 60
    own = sample_nli("train")
    assert len(given["nli"]) == len(own) + 2 and given["nli"][-1]["label"] == "contradiction"
    assert len(given["questions"]) == len(sample_retrieval("train"))
    named = [
        word.replace("documents.jsonl", "named_documents.jsonl").replace("nli.jsonl", "named_nli.jsonl")
        for word in arguments
    ]
    named += ["--columns", "title=tựa", "--columns", "text=nội dung", "--columns", "premise=câu một"]
    before = given["nli"].to_list()
    result = CliRunner().invoke(app, ["distill", "encoder", *named])
    assert result.exit_code == 0 and given["args"][1][0].column_names == ["title", "text"], result.output
    assert given["nli"].to_list() == before
    result = CliRunner().invoke(app, ["distill", "encoder", *arguments, "--columns", "anchor=a"])
    assert isinstance(result.exception, ValueError) and "there is no role 'anchor' here" in str(result.exception)
    result = CliRunner().invoke(app, ["distill", "encoder", *arguments, "--layers", "two"])
    assert isinstance(result.exception, ValueError) and "--layers must be numbers" in str(result.exception)


def test_sets_of_documents_by_their_shares():
    def paragraph(name: str, number: int) -> str:
        return f"Làng {name} số {number} họp chợ bên bờ sông từ năm {1900 + number}, người bán đến từ mười hai xã. " * 3

    sets = [
        Dataset.from_list([{"title": f"{name} {n}", "text": paragraph(name, n)} for n in range(60)])
        for name in ("Đông", "Tây")
    ]
    for shares, expected in (([3, 1], (30, 10)), (None, (20, 20)), ([0, 2], (0, 40))):
        questions = draw_questions(sets, None, 40, shares, 0)
        found = [sum(name in text for text in questions["positive"]) for name in ("Làng Đông", "Làng Tây")]
        assert tuple(found) == expected
        whole = draw_paragraphs(sets, shares, 40, 0, lengths=(200, 400))
        assert tuple(sum(name in text for text in whole) for name in ("Làng Đông", "Làng Tây")) == expected
    own = Dataset.from_list([{"anchor": "Ai?", "positive": "Bà Năm.", "document": "Chợ", "more": 1}])
    assert draw_questions(sets, own, 40, None, 0)[-1] == {"anchor": "Ai?", "positive": "Bà Năm.", "document": "Chợ"}
    texts = draw_texts(sets, ["một", "hai"], 40, [1, 0], 0)
    assert [text for text in texts if text in ("một", "hai")].count("một") == 2  # a tenth, repeated
    assert not any("Tây" in text for text in texts) and any("Đông" in text for text in texts)
    mixed = ["Tây" in text for text in draw_texts(sets, [], 40, None, 0)]
    assert any(mixed[: len(mixed) // 2])  # not one set after the other
    assert draw_texts(sets, [], 40, None, 1) != draw_texts(sets, [], 40, None, 2)
