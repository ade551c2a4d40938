"""The whole recipe at the smallest size: what it keeps, that it goes on, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from typer.testing import CliRunner

from st_vi import load
from st_vi.__main__ import app
from st_vi.data import sample_nli
from st_vi.recipes.sight import distil
from st_vi.recipes.sight.distil import STAGES, Centred, distill_vipolyqwen
from st_vi.recipes.sight.half import HalfPrecision
from st_vi.recipes.sight.seeing import DEEPER, Asked, Named, Seeing, for_testing
from tests.conftest import SENTENCES
from tests.helpers.small_encoder import change_weights, small_encoder
from tests.helpers.tiny_qwen2_vl import TINY, save_tiny_qwen2_vl

pytestmark = pytest.mark.slow

QUICK = {
    "num_texts": 120,
    "num_paragraphs": 4,
    "num_pairs": 24,
    "num_scenes": 6,
    "sizes": {**TINY, "vision_layers": 1},
    "batch_size": 16,
}
NAMES = [name for name in ("mặt trời", "con mèo", "quả chuối", "ô tô", "cái kéo") if not for_testing(name)]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path, base = tmp_path_factory.mktemp("teacher"), tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    small_encoder([*SENTENCES, *sample_nli()["premise"], "Ai? “” !"], base, width=32, layers=1)
    SentenceTransformer(modules=[Transformer(str(base)), Pooling(32, "mean")], device="cpu").save_pretrained(str(path))
    return path


def documents():
    premises = list(dict.fromkeys(sample_nli("train")["premise"]))
    rows = [{"title": f"Chuyện số {i // 10}", "text": " ".join(premises[i : i + 5])} for i in range(0, 400, 5)]
    return [Dataset.from_list(rows)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Emoji and a photograph."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, name in enumerate(NAMES):
        Image.new("RGBA", (40, 40), (50 * number, 90, 200, 255)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def run(teacher, pictures, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "out"
    named = [Named(pictures / f"{name}.png", (name,)) for name in NAMES]
    asked = [Asked(named[0].picture, "Đây là gì?", "Mặt trời.", ("Con mèo.",))]
    stages = [replace(stage, steps=steps, warm_up=1) for stage, steps in zip(STAGES, (4, 3, 12, 16, 2, 2), strict=True)]
    options = {"named": named, "asked": asked, "stages": stages, **QUICK}
    return distill_vipolyqwen(teacher, documents, output, **options), output, options


def test_the_model_is_kept_and_all_kinds_are_learned(run):
    model, output, _ = run
    log = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert {record["stage"] for record in log if "stage" in record} == {
        "text",
        "letters",
        "seeing",
        "reading",
        "deeper",
        "more_text",
    }
    names = {name.rpartition("_")[0] for record in log for name in record if name.endswith("_cosine")}
    assert names >= {"text", "pair", "lines", "captions", "questions", "named"}
    again = load(output / "model", device="cpu")
    assert (
        len(again[0].model.language_model.layers) == again[0].model.config.get_text_config().num_hidden_layers == 4
    )  # 2 and 2 new ones
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    inputs = [SENTENCES[0], Image.new("RGB", (60, 40), "red"), {"image": Image.new("RGB", (30, 30)), "text": "Gì?"}]
    for one in inputs:
        torch.testing.assert_close(again.encode(one), model.encode(one), atol=1e-5, rtol=1e-4)


def test_a_second_call_goes_on(run, teacher):
    model, output, options = run
    with pytest.raises(ValueError, match="has an earlier run: go on with resume"):
        distill_vipolyqwen(teacher, documents, output, **options)
    with pytest.raises(ValueError, match="was begun with num_texts = 120, not 99"):
        distill_vipolyqwen(teacher, documents, output, resume=True, **options | {"num_texts": 99})
    fewer = options["named"][:-1]
    with pytest.raises(ValueError, match=rf"was begun with named = '{len(NAMES)} rows .*, not '{len(fewer)} rows"):
        distill_vipolyqwen(teacher, documents, output, resume=True, **options | {"named": fewer})
    with pytest.raises(ValueError, match=r"was begun with shares = None, not \[1\.0\]"):
        distill_vipolyqwen(teacher, documents, output, resume=True, shares=[1.0], **options)
    with pytest.raises(ValueError, match="was begun with texts = '0 rows"):
        distill_vipolyqwen(teacher, documents, output, resume=True, texts=["Khác."], **options)
    with pytest.raises(ValueError, match="was begun with batch_size = 16, not 8"):
        distill_vipolyqwen(teacher, documents, output, resume=True, **options | {"batch_size": 8})
    with pytest.raises(ValueError, match="was begun with documents = "):
        distill_vipolyqwen(teacher, lambda: [documents()[0].select(range(60))], output, resume=True, **options)
    lines = (output / "log.jsonl").read_text()
    again = distill_vipolyqwen(teacher, documents, output, resume=True, **options)
    assert (output / "log.jsonl").read_text() == lines
    torch.testing.assert_close(again.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5, rtol=1e-4)


def test_a_teacher_a_base_or_a_picture_with_other_content_is_another(run, teacher, tmp_path):
    _, output, options = run
    copied = shutil.copytree(teacher, tmp_path / "elsewhere")
    log = (output / "log.jsonl").read_text()
    distill_vipolyqwen(copied, documents, output, resume=True, **options)
    assert (output / "log.jsonl").read_text() == log
    change_weights(copied)
    with pytest.raises(ValueError, match="was begun with teacher = "):
        distill_vipolyqwen(copied, documents, output, resume=True, **options)
    picture = options["named"][0].picture
    before = picture.read_bytes()
    Image.new("RGBA", (40, 40), "red").save(picture)
    with pytest.raises(ValueError, match="was begun with named = "):
        distill_vipolyqwen(teacher, documents, output, resume=True, **options)
    picture.write_bytes(before)
    base = save_tiny_qwen2_vl(tmp_path / "base")
    distill_vipolyqwen(teacher, documents, tmp_path / "out", base=base, stages=[], **QUICK)
    change_weights(base)
    with pytest.raises(ValueError, match=r"was begun with base = 'base \(.*\)', not 'base \("):
        distill_vipolyqwen(teacher, documents, tmp_path / "out", base=base, stages=[], resume=True, **QUICK)


def test_a_run_that_goes_on_between_stages_has_the_same_weights(teacher, tmp_path):
    stages = [replace(STAGES[place], steps=1, warm_up=1) for place in (0, 1, 4)]
    whole = distill_vipolyqwen(teacher, documents, tmp_path / "out", stages=stages, **QUICK)
    for done in ("letters", "deeper"):
        shutil.rmtree(tmp_path / "out" / done)
    torch.manual_seed(7)
    again = distill_vipolyqwen(teacher, documents, tmp_path / "out", stages=stages, resume=True, **QUICK)
    for before, after in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(before, after)


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (0, {"steps": 3}, "text was begun with other settings: it has 2 steps, and 3 are asked for"),
        (0, {"steps": 1}, "text was begun with other settings: it has 2 steps, and 1 are"),
        (1, {"steps": 1}, "deeper was begun with other settings: it has 2 steps, and 1 are"),
        (1, {"learning_rate": 1.0}, "deeper was begun with other settings: its layers or learning rates were others"),
        (1, {"new_layers": 1}, "deeper was begun with other settings: its layers or learning rates"),
    ],
)
def test_a_stage_with_other_settings_is_not_mixed_with_the_earlier_one(place, change, message, begun, teacher):
    output, stages = begun
    stages = [replace(stage, **change) if number == place else stage for number, stage in enumerate(stages)]
    before = {path: path.read_bytes() for path in output.rglob("state.pt")}
    with pytest.raises(ValueError, match=message):
        distill_vipolyqwen(teacher, documents, output, stages=stages, resume=True, **QUICK)
    assert {path: path.read_bytes() for path in output.rglob("state.pt")} == before


def test_the_last_stage_that_was_begun_can_be_lengthened(begun, teacher, tmp_path):
    shutil.copytree(begun[0], tmp_path / "out")
    stages = [begun[1][0], replace(begun[1][1], steps=3), replace(STAGES[5], steps=1)]
    distill_vipolyqwen(teacher, documents, tmp_path / "out", stages=stages, resume=True, **QUICK)
    assert [torch.load(tmp_path / "out" / stage.name / "state.pt")["step"] for stage in stages] == [2, 3, 1]


@pytest.fixture(scope="module")
def begun(teacher, tmp_path_factory):
    """A run of two stages of two steps."""
    output = tmp_path_factory.mktemp("begun") / "out"
    stages = [replace(STAGES[place], steps=2, warm_up=1) for place in (0, 4)]
    distill_vipolyqwen(teacher, documents, output, stages=stages, **QUICK)
    return output, stages


@pytest.mark.parametrize("layers", [0, 3])
def test_the_last_stage_has_new_layers_but_in_a_base_of_ones_own(layers, teacher, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        distil, "HalfPrecision", lambda model, rate, rates: seen.append(rates) or HalfPrecision(model, rate, rates)
    )
    step = Seeing.step
    monkeypatch.setattr(Seeing, "step", lambda self, *more: seen.append(more[-1]) or step(self, *more))
    base = save_tiny_qwen2_vl(tmp_path / "base", layers=layers) if layers else None
    stages = [replace(STAGES[place], steps=1, warm_up=1) for place in (0, 4)]
    model = distill_vipolyqwen(teacher, documents, tmp_path / "out", base=base, stages=stages, **QUICK)
    new = {} if layers else {"layers.2.": 1.0, "layers.3.": 1.0}
    assert seen == [{}, new | {"visual": 0.8, "": 0.5}, DEEPER]
    assert len(model[0].model.language_model.layers) == (layers or 4)
    assert load(tmp_path / "out" / "model", device="cpu").encode(SENTENCES).shape == (len(SENTENCES), 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("It was raining, and we all stayed at home that day. " * 4, "the texts are not Vietnamese"),
        (SENTENCES[0], "no paragraph of the documents gives a question"),
        (None, "there is no such file"),
    ],
)
def test_after_unusable_documents_the_folder_is_free(text, message, teacher, tmp_path):
    def unusable():
        if text is None:
            raise ValueError("there is no such file")
        return [Dataset.from_list([{"title": f"{text[:12]} {number}", "text": text} for number in range(40)])]

    with pytest.raises(ValueError, match=message):
        distill_vipolyqwen(teacher, unusable, tmp_path / "out", **QUICK)
    assert not (tmp_path / "out").exists()


def test_unknown_stages_are_refused_before_anything(teacher, tmp_path):
    with pytest.raises(ValueError, match="there is no stage 'sounds'"):
        distill_vipolyqwen(teacher, documents, tmp_path / "out", stages=[replace(STAGES[0], name="sounds")], **QUICK)
    assert not (tmp_path / "out").exists()


def test_centred_vectors_are_of_length_one_around_nothing(teacher):
    model = SentenceTransformer(str(teacher), device="cpu")
    centred = Centred(model, SENTENCES)
    plain = torch.nn.functional.normalize(torch.from_numpy(model.encode(SENTENCES)), dim=1)
    torch.testing.assert_close(centred.centre, plain.mean(dim=0))
    expected = plain - plain.mean(dim=0)
    torch.testing.assert_close(centred(SENTENCES), expected / expected.norm(dim=1, keepdim=True))


def test_the_command(monkeypatch, pictures, tmp_path):
    given = {}
    monkeypatch.setattr(
        "st_vi.recipes.sight.distil.distill_vipolyqwen", lambda *args, **kw: given.update(kw, args=args)
    )
    documents()[0].to_json(tmp_path / "documents.jsonl", force_ascii=False)
    tested = next(f"tên {number}" for number in range(99) if for_testing(f"tên {number}"))
    rows = [{"image": f"{NAMES[0]}.png", "ten": name, "keywords": ["sáng"]} for name in (NAMES[0], tested)]
    Dataset.from_list(rows).to_json(pictures / "named.jsonl", force_ascii=False)
    question = {"image": f"{NAMES[0]}.png", "question": "Đây là gì?", "answers": ["Mèo.", "Trời."], "correct": 1}
    assert not for_testing(question["question"])
    Dataset.from_list([question]).to_json(pictures / "asked.jsonl", force_ascii=False)
    arguments = ["--documents", str(tmp_path / "documents.jsonl"), "--output", str(tmp_path / "out")]
    arguments += ["--named", str(pictures / "named.jsonl"), "--columns", "name=ten", "--letters-steps", "7"]
    result = CliRunner().invoke(app, ["distill", "vipolyqwen", *arguments, "--asked", str(pictures / "asked.jsonl")])
    assert result.exit_code == 0, result.output
    assert given["args"][0] == "vi-mini" and given["args"][1]()[0].column_names == ["title", "text"]
    assert given["named"] == [Named(pictures / f"{NAMES[0]}.png", (NAMES[0], "sáng"))]
    assert given["asked"] == [Asked(pictures / f"{NAMES[0]}.png", "Đây là gì?", "Trời.", ("Mèo.",))]
    assert [stage.steps for stage in given["stages"]] == [1200, 7, 2500, 44_000, 20_000, 11_500]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"image": "none.png", "question": "Gì?", "answers": ["a", "b"], "correct": 0},
            "there is no image 'none.png'",
        ),
        ({"image": "bad.png", "question": "Gì?", "answers": ["a", "b"], "correct": 0}, "row 0: cannot read"),
        (
            {"image": "good.png", "question": "Gì?", "answers": ["a", "b"], "correct": 2},
            "row 0: correct must be a place",
        ),
        ({"image": "good.png", "answers": ["a", "b"], "correct": 0}, "missing column 'question'"),
    ],
)
def test_bad_rows_are_named(row, message, tmp_path):
    Image.new("RGB", (30, 30)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    Dataset.from_list([row]).to_json(tmp_path / "asked.jsonl")
    arguments = ["--documents", "x.jsonl", "--output", str(tmp_path / "out"), "--asked", str(tmp_path / "asked.jsonl")]
    result = CliRunner().invoke(app, ["distill", "vipolyqwen", *arguments])
    assert isinstance(result.exception, ValueError) and message in str(result.exception), result.exception
