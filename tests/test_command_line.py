"""The commands as a user types them: in a process of their own, with exit codes and one-line errors."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from st_vi.__main__ import app, main
from st_vi.data import sample_nli
from st_vi.hub import load
from tests.tiny_qwen2_vl import save_tiny_qwen2_vl


def st_vi(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "nli.jsonl"
    sample_nli("test").to_json(path, force_ascii=False)
    return path


def test_demo_trains_saves_reloads_and_encodes(tmp_path):
    result = st_vi("demo", "--output", tmp_path, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "held-out triplet accuracy" in result.stdout and "1.00" in result.stdout
    assert SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True).encode("Xin chào").shape == (256,)


def test_vision_demo_trains_saves_reloads_and_encodes(tmp_path):
    result = st_vi("demo", "--system", "vipolyqwen", "--output", tmp_path, "--steps", 2)
    assert result.exit_code == 0, result.output
    assert "text_to_image" in result.stdout and "một hình tròn đỏ" in result.stdout
    picture = Image.open(tmp_path / "scene.png")
    assert SentenceTransformer(str(tmp_path / "model"), trust_remote_code=True).encode(picture).shape == (96,)


def test_train_then_evaluate(tiny_base, rows, tmp_path):
    out = tmp_path / "model"
    options = ("--base", tiny_base, "--train", rows, "--output", out, "--epochs", 1, "--batch-size", 32)
    result = st_vi("train", "viclsr", *options, "--eval-size", 0.3)
    assert result.exit_code == 0, result.output
    assert "triplets" in result.stdout and "eval_triplet_accuracy" in result.stdout

    again = tmp_path / "again"
    assert st_vi("train", "viclsr", *options[:4], "--output", again, *options[6:], "--eval-size", 0.3).exit_code == 0
    assert (load(again).encode("Trời mưa.") == load(out).encode("Trời mưa.")).all()

    result = st_vi("evaluate", out, "--nli", rows)
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"triplet_accuracy", "nli_spearman"}


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


def test_train_and_evaluate_vipolyqwen(tmp_path):
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
    result = st_vi("train", "vipolyqwen", *options, *more)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[:4] == ["text_pair", "4", "ocr", "4"]

    result = st_vi("evaluate", tmp_path / "model", "--rows", tmp_path / "rows.jsonl")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["ocr_chance"] == 0.25


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"premise": "a", "hypothesis": "b", "label": "đúng"}', r"column 'label', row 0: unknown label"),
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


def test_runs_as_a_module():
    result = subprocess.run([sys.executable, "-m", "st_vi", "evaluate", "x"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.strip() == "error: nothing to evaluate: give --nli, --rows or --benchmark"
