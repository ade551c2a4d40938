"""The commands as a user types them: in a process of their own, with exit codes and one-line errors."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from unicodedata import normalize

import datasets
import pytest
import torch
import typer
from PIL import Image
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers.utils import logging
from typer.testing import CliRunner

from st_vi import build_vipolyqwen
from st_vi.__main__ import app, main
from st_vi.cli.options import Command
from st_vi.cli.quiet import one_bar
from st_vi.cli.search import decoded
from st_vi.cli.sight import asked_rows, named_rows
from st_vi.data import sample_nli, sample_retrieval
from st_vi.encoding.search.words import syllables
from st_vi.hub import load
from st_vi.recipes.examples.demo import Answer, DemoResult
from st_vi.text import strip_diacritics
from tests.helpers.command_line import st_vi
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture
def quiet(recwarn, caplog):
    """Checks what a command left on standard error: the first words of each line, and no warning."""

    def check(result, *begins):
        lines = [line for line in result.stderr.split("\n") if line.strip()]
        lines = [line.split("\r")[-1].strip() for line in lines]
        assert [line[: len(begin)] for line, begin in zip(lines, begins, strict=True)] == list(begins), lines
        assert "{'" not in result.stdout  # the log, a dict a line
        assert not [str(warning.message) for warning in recwarn]
        assert not [record.message for record in caplog.records if record.levelname == "WARNING"]
        assert logging.is_progress_bar_enabled() and not datasets.are_progress_bars_disabled()  # of other code

    return check


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "nli.jsonl"
    sample_nli("test").to_json(path, force_ascii=False)
    return path


def test_demo_answers_compares_trains_and_saves(tmp_path, monkeypatch, quiet):
    from st_vi.recipes.examples import demo

    few = sample_nli("train").select(range(60))
    monkeypatch.setattr(demo, "sample_nli", lambda split: few)
    result = st_vi("demo", "--output", tmp_path, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("✓") == len(demo.QUESTIONS) and "✗" not in result.stdout
    assert "held-out triplet accuracy" in result.stdout
    rows = [line.split()[1:4] for line in result.stdout.splitlines() if re.match(r"  [123]  ", line)]
    flood, paraphrase, football = [[float(value) for value in row] for row in rows]
    assert flood[1] > max(flood[2], paraphrase[2]) + 0.1 and football[2] == 1
    quiet(result, "Searching with vi-mini", "100%")
    assert SentenceTransformer(str(tmp_path / "model")).encode("Xin chào").shape == (384,)


def test_a_demo_replaces_only_a_demo(monkeypatch, capsys, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "modules.json").write_text("[]")
    (tmp_path / "model" / "training_run.json").write_text("{}")
    assert run_main(monkeypatch, "demo", "--output", tmp_path) == 2
    assert "model was not made by a demo, which would replace it" in capsys.readouterr().err
    assert len(list(tmp_path.rglob("*"))) == 3


def test_the_questions_of_the_demo_are_what_they_are_said_to_be():
    from st_vi.recipes.examples.demo import QUESTIONS

    passages = {row["passage_id"]: row["passage"] for row in sample_retrieval("test")}
    words = [(set(syllables(question)), set(syllables(passages[name]))) for question, name in QUESTIONS]
    assert not words[5][0] & words[5][1]
    assert [strip_diacritics(question) == question for question, _ in QUESTIONS] == [False] * 3 + [True] * 2 + [False]


def test_train_then_evaluate(tiny_base, rows, tmp_path, quiet):
    out = tmp_path / "model"
    options = ("--base", tiny_base, "--train", rows, "--output", out, "--epochs", 1, "--batch-size", 32)
    result = st_vi("train", "viclsr", *options, "--eval-size", 0.3)
    assert result.exit_code == 0, result.output
    assert "triplets" in result.stdout and "eval_triplet_accuracy" in result.stdout
    quiet(result, "100%")

    again = tmp_path / "again"
    assert st_vi("train", "viclsr", *options[:4], "--output", again, *options[6:], "--eval-size", 0.3).exit_code == 0
    assert (load(again).encode("Trời mưa.") == load(out).encode("Trời mưa.")).all()

    result = st_vi("evaluate", out, "--nli", rows)
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"triplet_accuracy", "nli_spearman"}
    quiet(result, "Batches: 100%")


def test_training_on_the_held_out_rows_is_said(tiny_base, rows, tmp_path, caplog):
    options = ("--base", tiny_base, "--output", tmp_path, "--max-steps", 1, "--batch-size", 4)
    result = st_vi("train", "viclsr", "--train", rows, "--eval", rows, *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"(\d+) of \1 held-out rows are training rows", caplog.text)


@pytest.mark.parametrize(
    ("command", "begins"),
    [("train", "st_vi.hub.included_or_same"), ("ablate", "st_vi.recipes.ablation.study.study_of_rows")],
)
def test_training_on_the_held_out_rows_of_mixed_tasks_is_said(monkeypatch, tmp_path, caplog, command, begins):
    """Before anything is built."""

    def enough(*args, **kwargs):
        raise ValueError("enough")

    monkeypatch.setattr(begins, enough)
    row = {"anchor": "Trời mưa.", "positive": "Có mưa.", "task": "instr"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    options = ("--train", tmp_path / "rows.jsonl", "--eval", tmp_path / "rows.jsonl", "--output", tmp_path / "out")
    result = st_vi(command, "vipolyqwen", *options, "--base", "poly-mini")
    assert str(result.exception) == "enough" and "1 of 1 held-out rows are training rows" in caplog.text


def test_evaluate_a_benchmark_on_local_files(tiny_model, rows, tmp_path):
    tiny_model.save_pretrained(str(tmp_path))
    facts = sample_nli("test").rename_columns({"premise": "Evidence", "hypothesis": "Statement", "label": "labels"})
    number = {"entailment": 0, "contradiction": 1, "neutral": 2}
    facts = facts.map(lambda row: {"labels": number[row["labels"]]}, features=None)
    facts.to_json(tmp_path / "facts.jsonl")
    options = ("--benchmark", "ViFactCheck", "--train", tmp_path / "facts.jsonl", "--test", tmp_path / "facts.jsonl")
    result = st_vi("evaluate", tmp_path, *options)
    assert result.exit_code == 0, result.output
    metrics = json.loads(result.stdout[result.stdout.index("{") :])
    assert metrics["ViFactCheck_probe_macro_f1"] > 0.4

    (tmp_path / "bad.csv").write_text("Statement,Evidence,labels\na,,0\n", encoding="utf-8")
    result = st_vi("evaluate", tmp_path, *options[:-1], tmp_path / "bad.csv")
    assert f"{tmp_path / 'bad.csv'}: ViFactCheck: column 'Evidence'" in str(result.exception)
    result = st_vi("evaluate", tmp_path, *options[:-1], "")
    assert "the name of a file is empty" in str(result.exception)


def test_train_and_evaluate_vipolyqwen(tmp_path, quiet):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    lines = []
    for colour, name in (("red", "đỏ"), ("blue", "xanh"), ("green", "lục"), ("black", "đen")):
        Image.new("RGB", (56, 56), colour).save(tmp_path / f"{colour}.png")
        picture = {"anchor": "Màu gì?", "anchor_image": f"{colour}.png", "positive": f"Màu {name}.", "task": "ocr"}
        text = {"anchor": f"Áo {name}.", "positive": f"Cái áo màu {name}.", "score": 0.9, "task": "text_pair"}
        lines += [json.dumps(picture), json.dumps(text)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    options = ("--base", base, "--train", tmp_path / "rows.jsonl", "--output", tmp_path / "model", "--epochs", 1)
    more = ("--embedding-dimension", 16, "--batch-size", 4, "--accumulation", 1, "--max-pixels", 56 * 56)
    result = st_vi("train", "vipolyqwen", *options, *more, "--balance", "grad_norm")
    assert result.exit_code == 0, result.output
    assert "GradNorm(alpha=1.5)" in (tmp_path / "model" / "training_run.json").read_text(encoding="utf-8")
    assert result.stdout.split()[:4] == ["text_pair", "4", "ocr", "4"]
    quiet(result, "100%")

    result = st_vi("evaluate", tmp_path / "model", "--rows", tmp_path / "rows.jsonl")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ocr_chance"] == 0.25
    quiet(result, "Rows: 100%")

    result = st_vi("encode", tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "out", "--column", "positive")
    assert result.exit_code == 0, result.output
    quiet(result, "Rows: 100%")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"premise": "a", "hypothesis": "b", "label": "hay"}', r"column 'label', row 0: unknown label"),
        ('{"premise": "a", "label": "entailment"}', "missing column for hypothesis"),
        ('{"premise": "a", "hypothesis": "", "label": "entailment"}', r"column 'hypothesis', row 0"),
        ('{"premise": "a", "hypothesis": "b", "label": "neutral"}', "no usable pair"),
        ('{"premise": ', "line 1: not JSON"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    path.write_text(line, encoding="utf-8")
    arguments = ["train", "viclsr", "--base", "none", "--train", path, "--output", tmp_path / "out", "--eval-size", 0]
    monkeypatch.setattr(sys, "argv", ["st-vi", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bad_rows_of_several_files_are_named_with_their_file(monkeypatch, capsys, tmp_path):
    good, bad, neutral = (tmp_path / name for name in ("tốt.csv", "lỗi.csv", "trung lập.csv"))
    head, of = "premise,hypothesis,label\n", "Trời mưa ngày {0}.,Có mưa.,{1}\nTrời mưa ngày {0}.,Nắng.,{2}\n"
    good.write_text(head + "".join(of.format(day, "Đúng", "Sai") for day in range(40)), encoding="utf-8")
    bad.write_text(head + "Gió.,Lạnh.,Đúng\n" + of.format(8, "Sai", "Không rõ"), encoding="utf-8")
    neutral.write_text(head + "Gió.,Lạnh.,Không rõ\n", encoding="utf-8")
    train = ("train", "viclsr", "--base", "vi-mini", "--output", tmp_path / "out", "--train", good)
    assert run_main(monkeypatch, *train, "--train", bad, "--eval-size", 0.2) == 2
    error = capsys.readouterr().err
    assert f"column 'hypothesis', row 1 of {bad}: positive and negative are equal" in error
    assert "--skip-conflicts" in error
    for arguments in ((*train, "--eval", neutral), ("evaluate", "vi-mini", "--nli", neutral)):
        assert run_main(monkeypatch, *arguments) == 2
        assert f"error: {neutral}: Nothing to compare" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_column_may_be_named_in_the_letters_of_another_system(tmp_path):
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    rows, named = tmp_path / "rows.csv", normalize("NFD", "văn bản")
    rows.write_text(f"{named},số\nTrời mưa.,1\n", encoding="utf-8")
    for name in (named, "văn bản"):
        result = st_vi("encode", "vi-mini", rows, tmp_path / str(len(name)), "--column", name, "--keep", "số")
        assert result.exit_code == 0, result.output
        result = st_vi("search", rows, "mưa", "--no-dense", "--column", name)
        assert result.exit_code == 0 and "Trời mưa." in result.stdout, result.output


@pytest.mark.slow
def test_a_file_may_be_named_in_the_letters_of_another_system(monkeypatch, tmp_path):
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / normalize("NFD", "dữ liệu")
    folder.mkdir()
    for name in ("~$open.jsonl", normalize("NFD", "câu.jsonl")):
        (folder / name).write_text('{"text": "Trời mưa."}\n', encoding="utf-8")
    for name, output in (("câu.jsonl", "first"), ("~$open.jsonl", "second")):
        result = st_vi("encode", "vi-mini", f"dữ liệu/{name}", f"dữ liệu/{output}")
        assert result.exit_code == 0 and (folder / output / "manifest.json").exists(), result.output
    for source in ("dữ liệu/câu.jsonl", "dữ liệu/~$open.jsonl"):
        result = st_vi("search", source, "mưa", "--no-dense")
        assert result.exit_code == 0 and "Trời mưa." in result.stdout, result.output
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ({"name": "Mèo", "keywords": "mèo"}, "row 0: expected a text as name and a list of texts as keywords"),
        ({"name": None, "keywords": []}, "row 0: expected a text as name"),
        ({"name": "Mèo", "picture": "a.png"}, "missing column 'words' for keywords"),
        ({"question": "Gì?", "answers": "abc", "correct": 1}, "row 0: expected a text as question and a list of texts"),
        ({"question": "Gì?", "answers": ["a", None], "correct": 0}, "row 0: expected a text as question and a list of"),
        ({"question": "Gì?", "answers": None, "correct": 0}, "row 0: expected a text as question and a list of texts"),
        ({"question": None, "answers": ["a"], "correct": 0}, "row 0: expected a text as question"),
        ({"question": "Gì?", "answers": ["a", "b"], "correct": True}, "row 0: correct must be a place"),
        ({"question": "Gì?", "answers": ["a"], "correct": 0, "image": 5}, "row 0: expected the name of an image"),
    ],
)
def test_rows_of_images_that_are_none(rows, problem, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"image": "a.png"} | rows), encoding="utf-8")
    read = named_rows if "name" in rows else asked_rows
    with pytest.raises(ValueError, match=rf"rows\.jsonl.*{re.escape(problem)}"):
        read(str(tmp_path / "rows.jsonl"), {"keywords": "words"} if "picture" in rows else {})


def test_named_columns_of_images_stand_for_others_of_that_name(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    row = {"image": "a.png", "name": "cat", "tên": "Con mèo", "keywords": None}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (found,) = named_rows(str(tmp_path / "rows.jsonl"), {"name": normalize("NFD", "tên")})
    assert found.names == ("Con mèo",)


def test_search_without_a_question_and_with_a_closed_input(monkeypatch, capsys, tmp_path):
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    (tmp_path / "rows.csv").write_text("text\nTrời mưa.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", None)
    assert run_main(monkeypatch, "search", tmp_path / "rows.csv", "--no-dense") == 2
    assert "error: there is no question, and no input to read one from" in capsys.readouterr().err


def test_search_of_questions_in_another_encoding(monkeypatch, capsys, tmp_path):
    """The first is answered; a console without UTF-8 would find nothing for the second."""
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    (tmp_path / "rows.csv").write_text("text\nTrời mưa.\n", encoding="utf-8")
    typed = io.BytesIO("mưa\n".encode() + "mưa\n".encode("cp1258"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(typed, "utf-8", "surrogateescape"))
    assert run_main(monkeypatch, "search", tmp_path / "rows.csv", "--no-dense") == 2
    shown = capsys.readouterr()
    assert "Trời mưa." in shown.out and "is not in the encoding of this console" in shown.err


@pytest.mark.parametrize("encoding", ["cp1252", "cp1258", "cp437"])
def test_search_of_questions_in_a_file_and_json_on_windows(monkeypatch, tmp_path, encoding):
    """Files are in UTF-8, whatever letters the console has; JSON written into one can be read."""
    assert decoded("\ufeffthủ".encode()) == "thủ"
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    text = "Thủ tục ở tòa án 😀 – café"
    (tmp_path / "rows.csv").write_text(f"text\n{text}\nThuế nhà đất\n", encoding="utf-8")
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\ufeffthủ\n".encode()), encoding))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    assert run_main(monkeypatch, "search", tmp_path / "rows.csv", "--no-dense", "--json") == 0
    sys.stdout.flush()
    (found,) = json.loads(written.getvalue())
    assert found["passage"]["text"] == text


def test_search_of_questions_in_utf_16(monkeypatch, capsys, tmp_path):
    pytest.importorskip("bm25s", reason='needs pip install "st-vi[search]"')
    (tmp_path / "rows.csv").write_text("text\nTrời mưa.\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("mưa\n".encode("utf-16")), "cp1252"))
    assert run_main(monkeypatch, "search", tmp_path / "rows.csv", "--no-dense") == 2
    assert "is not in the encoding of this console" in capsys.readouterr().err


def run_main(monkeypatch, *arguments):
    """The exit code of `st-vi …`."""
    monkeypatch.setattr(sys, "argv", ["st-vi", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


NLI = ("train", "viclsr", "--base", "none", "--train", "rows.csv", "--output", "out")
MIXED = ("train", "vipolyqwen", "--base", "none", "--train", "rows.csv", "--output", "out")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*NLI, "--epochs", 0), "'--epochs': 0.0 is not more than 0"),
        ((*NLI, "--epochs", -1), "'--epochs': -1.0 is not more than 0"),
        ((*NLI, "--learning-rate", 0), "'--learning-rate': 0.0 is not more than 0"),
        ((*NLI, "--learning-rate", "nan"), "'--learning-rate': nan is not more than 0"),
        ((*NLI, "--temperature", 0), "'--temperature': 0.0 is not more than 0"),
        ((*NLI, "--batch-size", 0), "'--batch-size'"),
        ((*NLI, "--max-steps", 0), "'--max-steps'"),
        (
            (*NLI, "--batch-size", 10**20),
            "'--batch-size': 100000000000000000000 is out of range: numbers are 0 or between 1e-37 and 1e+12",
        ),
        ((*NLI, "--max-steps", 10**400), "'--max-steps': 100000000000000000000000 is out of range"),
        ((*NLI, "--epochs", "inf"), "'--epochs': inf is out of range"),
        ((*NLI, "--temperature", "1e-320"), "'--temperature': 1e-320 is out of range"),
        ((*NLI, "--hard-negative-weight", "nan"), "'--hard-negative-weight': nan is out of range"),
        ((*NLI, "--hard-negative-weight", "-1e308"), "'--hard-negative-weight': -1e+308 is out of range"),
        ((*NLI, "--seed", 2**32), "'--seed'"),
        (
            ("encode", "none", "a.csv", "out", "--shard-rows", 10**20),
            "'--shard-rows': 100000000000000000000 is out of range",
        ),
        (("search", ".", "Mưa", "--top", 10**20), "'--top': 100000000000000000000 is out of range"),
        (
            ("plan", "train", "--base", "none", "--rows", 10**20, "--max-length", 9),
            "'--rows': 100000000000000000000 is out of range",
        ),
        (("ablate", "vipolyqwen", "--steps", 10**20), "'--steps': 100000000000000000000 is out of range"),
        (
            ("distill", "encoder", "--teacher", "t", "--documents", "d", "--output", "o", "--share", "1e308"),
            "'--share'",
        ),
        ((*NLI, "--max-steps", 5, "--epochs", 2), "--epochs does nothing with --max-steps"),
        ((*NLI, "--eval", "a.csv", "--eval-size", 0.2), "--eval-size does nothing with --eval"),
        ((*NLI, "--label", "0"), "--label must be two names joined by =, got '0'"),
        ((*NLI, "--label", "0=neutral", "--label", "0=other"), "--label: '0' is given twice"),
        ((*NLI, "--columns", "premis=a"), "no role 'premis' here; the roles are premise, hypothesis, label"),
        ((*NLI, "--device", "gpu"), "--device gpu: no such device"),
        (NLI[:-2], "Missing option '--output'"),
        ((*MIXED, "--lora-rank", 4), "--lora-rank does nothing without --lora"),
        ((*MIXED, "--lora", "--vision-learning-rate", 1e-6), "--vision-learning-rate does nothing with --lora"),
        ((*MIXED, "--vision-learning-rate", -1), "'--vision-learning-rate'"),
        ((*MIXED, "--accumulation", 0), "'--accumulation'"),
        (("evaluate", "none", "--rows", "a.csv", "--label", "0=neutral"), "--label does nothing without --nli"),
        (("evaluate", "none", "--nli", "a.csv", "--protocol", "probe"), "--protocol does nothing without --benchmark"),
        (("evaluate", "none", "--nli", "a.csv", "--columns", "task=a"), "no role 'task' here"),
        (
            ("distill", "encoder", "--teacher", "t", "--documents", "d", "--output", "o", "--label", "0=neutral"),
            "--label",
        ),
        (("demo", "--system", "vipolyqwen", "--epochs", 5), "--epochs does nothing with --system vipolyqwen"),
        (("ablate", "vipolyqwen", "--label", "0=neutral"), "--label does nothing without --nli"),
        (("ablate", "vipolyqwen", "--table-only", "--seeds", 2), "--seeds does nothing with --table-only"),
        (("ablate", "vipolyqwen", "--train", "a", "--eval", "b", "--rows", 9), "--rows does nothing with --train"),
        (("search", ".", "Mưa", "--no-dense", "--model", "vi-mini"), "--model does nothing with --no-dense"),
        (("bogus",), "No such command 'bogus'"),
    ],
)
def test_options_that_cannot_be_are_one_line_and_nothing_is_written(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not list(tmp_path.iterdir())


def test_every_command_checks_its_numbers():
    groups, commands = [typer.main.get_command(app)], []
    while groups:
        inside = groups.pop().commands.values()
        groups += [command for command in inside if hasattr(command, "commands")]
        commands += [command for command in inside if not hasattr(command, "commands")]
    assert len(commands) > 10 and all(isinstance(command, Command) for command in commands)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory."), torch.empty])
def test_out_of_memory_is_one_line(monkeypatch, capsys, error):
    def fails(*args, **kwargs):
        raise error if isinstance(error, Exception) else error(10**15)

    monkeypatch.setattr("st_vi.__main__.app", fails)
    assert run_main(monkeypatch) == 2
    assert capsys.readouterr().err.startswith("error: out of memory: smaller batches or inputs need less (")


@pytest.mark.slow
def test_what_is_no_model_and_no_folder(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("of mine")
    (tmp_path / "rows.csv").write_text("text,premise,hypothesis,label\na,a,b,yes\na,a,c,refuted\n", encoding="utf-8")
    (tmp_path / "mixed.csv").write_text("anchor,positive,task\na,b,instr\n", encoding="utf-8")
    nli, mixed = ("--train", "rows.csv", "--eval-size", 0), ("--train", "mixed.csv")
    distill = ("distill", "encoder", "--documents", "rows.csv")
    cases = {
        ("evaluate", "./none", "--nli", "rows.csv"): "no such folder: ./none",
        ("evaluate", "a/b/c", "--nli", "rows.csv"): "no such folder: a/b/c",
        ("evaluate", "", "--nli", "rows.csv"): "the name of a model is empty",
        ("evaluate", "vi-mini", "--nli", ""): "the name of a file is empty",
        ("evaluate", "vi-mini", "--rows", "mixed.csv"): "vi-mini has no prompts for the tasks instr of --rows",
        ("train", "viclsr", "--base", "../none", *nli, "--output", "o"): "no such folder: ../none",
        ("train", "viclsr", "--base", "vi-mini", *nli, "--output", "file"): "'file' is a file",
        ("train", "vipolyqwen", "--base", "poly-mini", *mixed, "--output", "file"): "'file' is a file",
        ("encode", "vi-mini", "rows.csv", "file"): "'file' is a file",
        ("search", "rows.csv", "Mưa", "--index", "file"): "'file' is a file",
        ("search", "rows.csv", " "): "the question is empty",
        ("search", "rows.csv", "m\udcc6\udcb0a", "--no-dense"): "is not in the encoding of this console",
        ("search", "rows.csv", "Mưa", "--prompt-name", "mine"): "prompt 'mine'",
        ("search", "--images", ".", "Mưa"): "there is no image in .",
        ("trim", "./none", "rows.csv", "--output", "o"): "no such folder: ./none",
        ("trim", "vi-mini", "rows.csv", "--output", "file"): "'file' is a file",
        ("ablate", "vipolyqwen", "--output", "file"): "'file' is a file",
        ("demo", "--output", "file"): "'file' is a file",
        (*distill, "--teacher", "vi-mini", "--output", "file"): "'file' is a file",
        (*distill, "--teacher", "vi-mini", "--output", "o"): "rows.csv: missing column 'title'",
        ("distill", "vipolyqwen", "--documents", "rows.csv", "--output", "file"): "'file' is a file",
        ("train", "viclsr", "--base", "vi-mini", *nli, "--output", ""): "the name of the folder is empty",
        ("encode", "vi-mini", "rows.csv", ""): "the name of the folder is empty",
        ("search", "rows.csv", "Mưa", "--index", ""): "the name of the folder is empty",
        ("search", "", "Mưa"): "the name of the file or folder is empty",
    }
    for arguments, message in cases.items():
        assert run_main(monkeypatch, *arguments) == 2
        *_, error = capsys.readouterr().err.strip().splitlines()
        assert error.startswith("error: ") and message in error, (arguments, error)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "rows.csv", "mixed.csv"}


def test_vietnamese_labels_own_columns_and_steps(tiny_base, tmp_path):
    names = {"entailment": "Kéo theo", "neutral": "trung_lap", "contradiction": "Mâu thuẫn"}
    with (tmp_path / "rows.csv").open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["câu a", "câu b", "nhãn", "premise"])
        writer.writerows([r["premise"], r["hypothesis"], names[r["label"]], "x"] for r in sample_nli("test"))
    columns = [f"--columns={role}={name}" for role, name in (("premise", "câu a"), ("hypothesis", "câu b"))]
    options = ("--train", tmp_path / "rows.csv", *columns, "--columns", "label=nhãn", "--device", "cpu", "--no-bf16")
    out = tmp_path / "out"
    steps = ("--max-steps", 4, "--save-steps", 2, "--batch-size", 8)
    result = st_vi("train", "viclsr", "--base", tiny_base, *options, "--output", out, *steps)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    assert "eval_triplet_accuracy" in result.stdout
    result = st_vi("evaluate", out, "--nli", tmp_path / "rows.csv", *options[2:], "--label", "trung_lap=other")
    assert set(json.loads(result.stdout)) == {"triplet_accuracy", "nli_spearman"}


def test_a_label_that_no_row_has(monkeypatch, capsys, tmp_path):
    (tmp_path / "rows.csv").write_text("premise,hypothesis,label\na,b,0\na,c,1\n", encoding="utf-8")
    given = ("--label", "0=entailment", "--label", "1=contradiction", "--label", "2=neutral")
    arguments = (*NLI[:5], tmp_path / "rows.csv", *NLI[6:], "--eval-size", 0)
    assert run_main(monkeypatch, *arguments, *given) == 2
    error = capsys.readouterr().err
    assert "no row of" in error and "rows.csv has '2'" in error
    assert run_main(monkeypatch, *arguments, *given[:4]) == 2  # for the base alone
    assert "triplets" in capsys.readouterr().out


@pytest.mark.slow
def test_training_starts_from_an_included_model_by_its_name(rows, tmp_path):
    options = ("--train", rows, "--output", tmp_path / "out", "--max-steps", 1, "--device", "cpu", "--no-bf16")
    result = st_vi("train", "viclsr", "--base", "vi-mini", *options, "--batch-size", 4, "--learning-rate", 1e-12)
    assert result.exit_code == 0, result.output
    texts = ["Trời mưa to.", "Cho tôi một ly cà phê."]
    vectors = []
    for name in ("vi-mini", tmp_path / "out"):
        model = load(name, device="cpu")
        encoder = SentenceTransformer(modules=[model[0], Pooling(384, "mean")], device="cpu")
        vectors.append(encoder.encode(texts, convert_to_tensor=True))
    torch.testing.assert_close(*vectors, atol=1e-3, rtol=0)  # a step at a rate of nothing


@pytest.mark.parametrize("checkpoints", [[], ["checkpoint-2", "checkpoint-10"]])
def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, tiny_base, rows, tmp_path, checkpoints):
    out = tmp_path / "out"
    for name in checkpoints:
        (out / name).mkdir(parents=True)
        (out / name / "trainer_state.json").write_text("{}")

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("st_vi.recipes.train_viclsr", interrupted)
    assert run_main(monkeypatch, "train", "viclsr", "--base", tiny_base, "--train", rows, "--output", out) == 130
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("interrupted: ") and "the same command with --resume" in error
    assert ("checkpoint-10" in error) == bool(checkpoints)


@pytest.mark.slow
def test_ctrl_c_after_overwrite_does_not_advise_both(monkeypatch, capsys, tiny_base, rows, tmp_path):
    monkeypatch.setattr("st_vi.recipes.train_viclsr", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
    arguments = ("train", "viclsr", "--base", tiny_base, "--train", rows, "--output", tmp_path / "out", "--overwrite")
    assert run_main(monkeypatch, *arguments) == 130
    assert "the same command with --resume in place of --overwrite" in capsys.readouterr().err


def test_resuming_nothing_is_said(monkeypatch, capsys, tmp_path):
    arguments = ("train", "viclsr", "--base", "none", "--train", "no.csv", "--output", tmp_path / "typo", "--resume")
    assert run_main(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"no checkpoint in {tmp_path / 'typo'}: training starts from scratch\n")


def test_too_few_rows_to_hold_any_out(tiny_base, tmp_path):
    lines = [{"premise": "Trời mưa.", "hypothesis": "Có mưa.", "label": "entailment"}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    options = ("--base", tiny_base, "--train", tmp_path / "rows.jsonl", "--output", tmp_path / "out", "--save-steps", 1)
    result = st_vi("train", "viclsr", *options, "--max-steps", 1, "--eval-size", 0.9)
    assert result.exit_code == 0, result.output
    assert "--eval-size 0.9 holds out too few of 2 rows: no evaluation" in result.stderr
    assert (tmp_path / "out" / "modules.json").exists()


def test_ctrl_c_while_rows_are_read(monkeypatch, capsys, rows, tmp_path):
    monkeypatch.setattr("st_vi.data.sources.nli_rows", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT))
    assert run_main(monkeypatch, "train", "viclsr", "--base", "none", "--train", rows, "--output", tmp_path) == 130
    assert capsys.readouterr().err.strip() == "interrupted: nothing was written; run the same command to start again"


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_signals_end_a_command_as_ctrl_c_does(monkeypatch, capsys, rows, tmp_path, name, code):
    if (number := getattr(signal, name, None)) is None:
        pytest.skip(f"no {name} here")
    monkeypatch.setattr("st_vi.data.sources.nli_rows", lambda *args, **kwargs: signal.raise_signal(number))
    before = signal.signal(number, signal.SIG_DFL)  # under nohup, SIGHUP is ignored
    try:
        assert run_main(monkeypatch, "train", "viclsr", "--base", "none", "--train", rows, "--output", tmp_path) == code
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert capsys.readouterr().err.strip() == "interrupted: nothing was written; run the same command to start again"


def test_ctrl_c_that_an_import_turns_into_an_error_is_ctrl_c(monkeypatch, capsys, rows, tmp_path):
    """As in transformers, whose lazy imports have an error of their own."""

    def imported(*args, **kwargs):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ModuleNotFoundError("Could not import module 'TrainerCallback'") from None

    monkeypatch.setattr("st_vi.data.sources.nli_rows", imported)
    assert run_main(monkeypatch, "train", "viclsr", "--base", "none", "--train", rows, "--output", tmp_path) == 143
    assert capsys.readouterr().err.strip() == "interrupted: nothing was written; run the same command to start again"


def test_the_code_is_that_of_the_signal_wherever_it_comes(tmp_path):
    """Python ends a program by SIGINT if a `KeyboardInterrupt` went through `exec`, even if it was caught."""
    asked = "lambda **_: exec('import signal; signal.raise_signal(15)')"
    code = f"import st_vi.__main__ as it\nit.app = {asked}\nit.main()\n"
    (tmp_path / "program.py").write_text(code, encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-m", "program"], env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert ended.returncode == 143 and ended.stderr.strip().startswith("interrupted: "), ended


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [SafetensorError("No space left on device"), RuntimeError("enforce fail at inline_container.cc:672")]
)
def test_a_model_that_cannot_be_written_is_one_line(monkeypatch, capsys, tiny_model, rows, tmp_path, error):
    def full(*args, **kwargs):
        raise error

    tiny_model.save_pretrained(str(tmp_path / "model"))
    monkeypatch.setattr("sentence_transformers.SentenceTransformer.save_pretrained", full)
    options = ("--column", "premise", "--output", tmp_path / "out")
    monkeypatch.setattr("st_vi.vocabulary.trim_vocabulary", lambda *args, **kwargs: None)
    assert run_main(monkeypatch, "trim", tmp_path / "model", rows, *options) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: a file could not be written, most likely because the disk is full (")
    assert not (tmp_path / "out").exists()


def test_ctrl_c_in_a_search_says_where_vectors_are(monkeypatch, capsys, tmp_path):
    (tmp_path / "a.txt").write_text("Trời mưa to.", encoding="utf-8")
    monkeypatch.setattr(
        "st_vi.encoding.search.SearchIndex.of_files", lambda *args, **kwargs: signal.raise_signal(signal.SIGINT)
    )
    assert run_main(monkeypatch, "search", tmp_path / "a.txt", "mưa") == 130
    assert f"vectors are kept in {tmp_path / '.st_vi' / 'a.txt'}" in capsys.readouterr().err


def test_ctrl_c_while_a_corpus_is_encoded(monkeypatch, capsys, tiny_model, rows, tmp_path):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("st_vi.encoding.encode_corpus", interrupted)
    tiny_model.save_pretrained(str(tmp_path / "model"))
    assert run_main(monkeypatch, "encode", tmp_path / "model", rows, tmp_path / "out", "--column", "premise") == 130
    assert "run the same command to resume" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["cp1252", "cp1258"])
def test_a_console_without_vietnamese_loses_nothing(monkeypatch, tmp_path, encoding):
    console = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in console.items():
        monkeypatch.setattr(sys, name, stream)
    answer = Answer("Trời mưa to ở đâu?", "Trời mưa to ở Đà Nẵng …", 1.0, True)
    result = DemoResult([answer], 1, (1.0, 1.0), torch.ones(3, 3), {"đúng": (0.5, 1.0)}, tmp_path)
    monkeypatch.setattr("st_vi.recipes.examples.demo.run_demo", lambda *args: result)
    assert run_main(monkeypatch, "demo", "--output", tmp_path) == 0
    console["stdout"].flush()
    shown = console["stdout"].buffer.getvalue().decode(encoding)
    assert "1.00" in shown
    assert r"\u1eb5ng" in shown and r"\u2713" in shown  # ẵ and a tick


class Gone(io.RawIOBase):
    """A terminal that was closed."""

    def writable(self):
        return True

    def write(self, content):
        raise BrokenPipeError


def test_a_run_goes_on_where_nobody_reads_its_messages(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(Gone()), line_buffering=True))
    monkeypatch.setattr("st_vi.__main__.app", lambda **_: print("a message\n" * 10_000, file=sys.stderr))
    assert run_main(monkeypatch, "--version") == 0
    assert run_main(monkeypatch, "--version") == 0  # and the end of the first closes nothing


def test_no_file_takes_the_place_of_a_closed_stream(tmp_path):
    code = "import sys; from st_vi.stock.messages import open_streams; open_streams()"
    code += "; print(open(sys.argv[1], 'w').fileno())"
    command = [sys.executable, "-c", code, str(tmp_path / "file")]
    assert int(subprocess.check_output(["sh", "-c", '"$@" 2>&- <&-', "sh", *command])) > 2


def test_the_version(monkeypatch, capsys):
    assert run_main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.startswith("st-vi 0.")


@pytest.mark.parametrize("arguments", [(), ("train",)])
def test_without_arguments_there_is_help(monkeypatch, capsys, arguments):
    assert run_main(monkeypatch, *arguments) == 2
    assert "Usage: " in "".join(capsys.readouterr())


def test_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "st_vi", "evaluate", "x"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip() == "error: nothing to evaluate: give --nli, --rows or --benchmark"


def test_an_ablation_that_cannot_be_plotted_does_not_begin(monkeypatch, capsys, tmp_path):
    def ablate(*_):
        raise AssertionError("began")

    monkeypatch.setattr("st_vi.recipes.ablation.run.ablate", ablate)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    assert run_main(monkeypatch, "ablate", "vipolyqwen", "--output", tmp_path / "out") == 2
    assert 'The plot needs plotly: pip install "st-vi[notebooks]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_ablation_from_an_included_model(monkeypatch, capsys, tmp_path):
    seen = []

    def ablate(study, *rest):
        seen.append(study)
        raise ValueError("enough seen")

    monkeypatch.setattr("st_vi.recipes.ablation.run.ablate", ablate)
    options = ("--base", "poly-mini", "--steps", 3, "--batch-size", 5, "--learning-rate", 0.002, "--rows", 4)
    assert run_main(monkeypatch, "ablate", "vipolyqwen", *options, "--test-rows", 2, "--output", tmp_path / "out") == 2
    assert "enough seen" in capsys.readouterr().err
    (study,) = seen
    model, own = build_vipolyqwen(study.base_of(0), 8).cpu(), load("poly-mini", device="cpu")
    same = dict(own[0].model.named_parameters())
    for name, parameter in model[0].model.named_parameters():
        torch.testing.assert_close(parameter.float(), same[name])
    assert not torch.equal(model[1].attention_context_vector, own[1].attention_context_vector)
    arguments = study.arguments
    assert arguments["per_device_train_batch_size"] * arguments["gradient_accumulation_steps"] == 5
    assert (arguments["learning_rate"], arguments["max_steps"]) == (0.002, 3)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "train", "ablate"])
def test_unreadable_images_and_unknown_labels_are_answered_with_options(tmp_path, command):
    (tmp_path / "bad.png").write_bytes(b"no image")
    picture = {"task": "vqa_single", "anchor": "Gì đây?", "anchor_image": "bad.png", "positive": "Mèo"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(picture), encoding="utf-8")
    (tmp_path / "nli.csv").write_text("premise,hypothesis,label\na,b,foo\n", encoding="utf-8")
    rows, nli, output = (str(tmp_path / name) for name in ("rows.jsonl", "nli.csv", "out"))
    of_pictures, of_labels = {
        "evaluate": (["evaluate", "poly-mini", "--rows", rows], ["evaluate", "poly-mini", "--nli", nli]),
        "train": (
            ["train", "vipolyqwen", "--base", "poly-mini", "--train", rows, "--output", output],
            ["train", "viclsr", "--base", "vi-mini", "--train", nli, "--output", output],
        ),
        "ablate": (
            ["ablate", "vipolyqwen", "--train", rows, "--eval", rows, "--output", output],
            ["ablate", "vipolyqwen", "--nli", nli, "--output", output],
        ),
    }[command]
    for arguments, option in ((of_pictures, "--skip-bad-images"), (of_labels, "--label ")):
        result = CliRunner().invoke(app, arguments)
        assert option in str(result.exception)
        assert option.strip() in CliRunner().invoke(app, [*arguments[: 1 + (command != "evaluate")], "--help"]).output
    assert not (tmp_path / "out").exists()


def test_warnings_take_one_line_until_a_command_ends():
    before = warnings.formatwarning
    with typer.Context(typer.main.get_command(app)) as context:
        one_bar(context)
        assert warnings.formatwarning("two\nlines", UserWarning, "file.py", 7) == "warning: two lines\n"
    assert warnings.formatwarning is before
