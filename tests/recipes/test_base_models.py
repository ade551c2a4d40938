"""A new model is not made over a trained one: its head, pooling vector or adapter would be lost without a word."""

from __future__ import annotations

import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from typer.testing import CliRunner

from st_vi import build_viclsr, build_vipolyqwen, export_stock, load
from st_vi.__main__ import app
from st_vi.data import sample_nli
from st_vi.recipes import base_models
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def stock(base, *more, pooling="cls"):
    return SentenceTransformer(modules=[Transformer(str(base)), Pooling(32, pooling), *more, Normalize()])


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))


def test_a_trained_viclsr_is_refused_with_what_to_do(tiny_base, tmp_path):
    build_viclsr(tiny_base).save_pretrained(str(tmp_path / "own"))
    with pytest.raises(ValueError, match=r"build_viclsr would drop: Dense\. .*st_vi\.load\('.*own'\)"):
        build_viclsr(tmp_path / "own")
    # The way that the message names.
    load(tmp_path / "own")[0].save(str(tmp_path / "encoder"))
    assert build_viclsr(tmp_path / "encoder").encode("Trời mưa.").shape == (32,)


@pytest.mark.parametrize("build", [build_viclsr, build_vipolyqwen])
def test_what_is_no_model_is_named(build, tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(ValueError, match=f"{tmp_path} has no model: neither modules.json nor config.json is in it"):
        build(tmp_path)
    for use in (build, load):
        with pytest.raises(ValueError, match=r"rows\.csv is a file: give the folder of a model"):
            use(tmp_path / "rows.csv")


def test_a_file_is_not_looked_up_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n", "utf-8")
    monkeypatch.setattr(base_models, "load_file_path", lambda *_, **__: pytest.fail("looked up"))
    with pytest.raises(ValueError, match=r"^rows\.csv is a file: give the folder of a model"):
        base_models.trained_parts("rows.csv")


def test_a_stock_head_is_not_dropped_either(tiny_base, tmp_path):
    stock(tiny_base, Dense(32, 16)).save_pretrained(str(tmp_path / "dense"))
    export_stock(build_viclsr(tiny_base), tmp_path / "exported")
    for folder in ("dense", "exported"):
        with pytest.raises(ValueError, match="would drop: Dense"):
            build_viclsr(tmp_path / folder)


def test_stock_models_without_a_head_are_bases_and_another_pooling_is_said(tiny_base, tmp_path, caplog):
    stock(tiny_base, pooling="mean").save_pretrained(str(tmp_path))
    assert build_viclsr(tmp_path, pooling="mean").encode("Trời mưa.").shape == (32,)
    assert "pooled" not in caplog.text
    build_viclsr(tmp_path, pooling="cls")
    assert "are pooled by 'mean'; build_viclsr starts with pooling='cls'" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "weightedmean"])
@pytest.mark.parametrize("old", [False, True])
def test_a_new_model_is_pooled_as_its_base(tiny_base, tmp_path, caplog, pooling, old):
    stock(tiny_base, pooling=pooling).save_pretrained(str(tmp_path))
    file = next(tmp_path.glob("*_Pooling/config.json"))
    key = {"cls": "cls_token", "max": "max_tokens"}.get(pooling, f"{pooling}_tokens")
    if old:
        file.write_text(json.dumps({"word_embedding_dimension": 32, f"pooling_mode_{key}": True}))
    assert build_viclsr(tmp_path)[1].pooling_mode == pooling
    assert "pooled" not in caplog.text
    assert build_viclsr(tiny_base)[1].pooling_mode == "cls"


def test_a_base_with_several_poolings_needs_a_choice(tiny_base, tmp_path):
    stock(tiny_base, pooling=("cls", "mean")).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"pooled in several ways, cls\+mean: choose one"):
        build_viclsr(tmp_path)
    assert build_viclsr(tmp_path, pooling="mean")[1].pooling_mode == "mean"


@pytest.mark.slow
def test_the_shell_takes_the_pooling_of_the_base_and_the_start_of_the_head(tiny_base, tmp_path):
    stock(tiny_base, pooling="mean").save_pretrained(str(tmp_path / "base"))
    sample_nli("test").select(range(12)).to_json(tmp_path / "rows.jsonl", force_ascii=False)
    options = ["train", "viclsr", "--base", tmp_path / "base", "--train", tmp_path / "rows.jsonl", "--eval-size", 0]
    options += ["--output", tmp_path / "out", "--learning-rate", 1e-12, "--max-steps", 1]
    options += ["--activation", "identity", "--head-init", "identity"]
    result = CliRunner().invoke(app, list(map(str, options)))
    assert result.exit_code == 0, result.output
    trained, base = load(tmp_path / "out"), load(tmp_path / "base")
    assert trained[1].pooling_mode == "mean"
    assert abs(trained.encode("Trời mưa.") - base.encode("Trời mưa.")).max() < 1e-6


@pytest.mark.parametrize("length", [0, 2, -5, None])
def test_a_length_without_room_for_a_token(tiny_base, length):
    with pytest.raises(ValueError, match="max_seq_length must be 3 or more tokens"):
        build_viclsr(tiny_base, max_seq_length=length)


@pytest.mark.parametrize("base", [None, 5, ["vi-mini"]])
def test_what_names_no_model(base):
    for function in (build_viclsr, build_vipolyqwen, load):
        with pytest.raises(ValueError, match="expected a folder or a repository of a model, got"):
            function(base)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"pooling": "lasttoken", "head": None}, {"lora": True}])
def test_a_trained_vipolyqwen_is_refused(tiny_qwen, tmp_path, settings):
    if "lora" in settings:
        pytest.importorskip("peft", reason='needs pip install "st-vi[lora]"')
    build_vipolyqwen(tiny_qwen, embedding_dimension=24, **settings).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match=r"build_vipolyqwen would drop: .*Qwen2VLTransformer") as error:
        build_vipolyqwen(tmp_path, **settings)
    assert ("merge_lora" in str(error.value)) == ("lora" in settings)


@pytest.mark.slow
def test_the_shell_trains_a_trained_model_further(tiny_base, tmp_path):
    torch.manual_seed(0)
    start = build_viclsr(tiny_base)
    start[2].linear.bias.data += 3  # what a new head would not have
    start.save_pretrained(str(tmp_path / "own"))
    sample_nli("test").select(range(60)).to_json(tmp_path / "rows.jsonl", force_ascii=False)
    options = ["train", "viclsr", "--base", tmp_path / "own", "--train", tmp_path / "rows.jsonl", "--eval-size", 0]
    options = list(map(str, [*options, "--output", tmp_path / "out", "--learning-rate", 1e-12, "--epochs", 0.1]))
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert "continuing its training, with its own Dense" in result.output
    assert abs(load(tmp_path / "out").encode("Trời mưa.") - start.encode("Trời mưa.")).max() < 1e-6

    for option, value in (("--activation", "tanh"), ("--head-init", "identity")):
        result = CliRunner().invoke(app, [*options, option, value])
        assert isinstance(result.exception, ValueError) and f"{option} does nothing with" in str(result.exception)
