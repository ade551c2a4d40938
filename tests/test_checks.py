"""Arguments of another kind, or in another order: the error names the argument."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi.data import drop_false_negatives, effective_contrastive_information, hardness, preference_strength
from st_vi.encoding import QueryEncoder, encode_by_tokens, encode_corpus, export_onnx, untrusted_input
from st_vi.evaluation import NLU_BENCHMARKS, GeometryEvaluator, NLISimilarityEvaluator, NLUEvaluator, load_benchmark
from st_vi.hub import export_stock, on_graph
from st_vi.inspection.attention import pool_texts
from st_vi.inspection.patches import view_patches
from st_vi.recipes import merge_lora

TEXTS = ["Trời mưa.", "Trời nắng."]
TRIPLETS = Dataset.from_dict({"anchor": TEXTS, "positive": TEXTS, "negative": TEXTS[::-1]})
DOORS = {
    "encode_by_tokens": lambda model: encode_by_tokens(model, TEXTS),
    "encode_corpus": lambda model: encode_corpus(model, [{"text": text} for text in TEXTS], "out"),
    "QueryEncoder": QueryEncoder,
    "pool_texts": lambda model: pool_texts(model, TEXTS),
    "view_patches": lambda model: view_patches(model, TEXTS[0]),
    "untrusted_input": lambda model: untrusted_input(model, TEXTS[0]),
    "export_onnx": lambda model: export_onnx(model, "out"),
    "export_stock": lambda model: export_stock(model, "out"),
    "on_graph": on_graph,
    "merge_lora": merge_lora,
    "hardness": lambda model: hardness(TRIPLETS, model),
    "drop_false_negatives": lambda model: drop_false_negatives(TRIPLETS, model),
    "effective_contrastive_information": lambda model: effective_contrastive_information(TRIPLETS, model),
    "preference_strength": lambda model: preference_strength(TRIPLETS, [model]),
}


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("outputs/viclsr", r"such as st_vi.load\('outputs/viclsr'\), got str"),
        (Path("out"), r"such as st_vi.load\('out'\), got "),
        (TEXTS, "such as st_vi.load gives, got list"),
        ({"text": TEXTS[0]}, "such as st_vi.load gives, got dict"),
        (None, "such as st_vi.load gives, got NoneType"),
    ],
    ids=["name", "path", "texts", "dict", "None"],
)
def test_what_is_no_model(door, given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^model must be a SentenceTransformer, {message}"):
        door(given)
    assert not any(tmp_path.iterdir())


@pytest.fixture
def model():
    return SentenceTransformer(modules=[BoW(vocab=["trời", "mưa"])], device="cpu")


def test_a_folder_that_is_none(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match="not dict"):
        export_stock(model, {"a": 1})
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["dict", "SentenceTransformer"])
def test_columns_that_are_none(kind, model):
    given = {"text": TEXTS} if kind == "dict" else model
    for made in (lambda: GeometryEvaluator(given), lambda: NLISimilarityEvaluator(TEXTS, given, ["neutral"] * 2)):
        with pytest.raises(ValueError, match=f"expected a list of inputs, got {kind}"):
            made()


def test_the_name_of_a_benchmark(model):
    for made in (lambda: load_benchmark("ViNLI", "rows.jsonl"), lambda: NLUEvaluator("ViNLI", TRIPLETS, TRIPLETS)):
        with pytest.raises(ValueError, match=r"benchmark must be an NLUBenchmark, such as NLU_BENCHMARKS\['ViNLI'\]"):
            made()
    with pytest.raises(ValueError, match=r"benchmark must be an NLUBenchmark, .* got SentenceTransformer"):
        NLUEvaluator(model, NLU_BENCHMARKS["ViNLI"], TRIPLETS)
