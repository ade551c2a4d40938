"""ONNX: the graph is the whole model, for any batch, and nothing else can be exported."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import LSTM, BoW, Pooling
from torch import nn

from st_vi import MLPHead, WordSegmentedTransformer, build_viclsr, build_vipolyqwen
from st_vi.graphs import export as onnx_export
from st_vi.graphs.encoder import CONFIG_FILE, OnnxEncoder
from st_vi.graphs.export import export_onnx, quantize_onnx
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

needs_onnx = pytest.mark.skipif(
    not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))), reason='needs pip install "st-vi[onnx]"'
)
needs_openvino = pytest.mark.skipif(not find_spec("openvino"), reason="needs pip install openvino")

TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES), *(text[: 3 + 5 * i] for i, text in enumerate(SENTENCES))]
one_shape = pytest.mark.parametrize("model", [("cls", "tanh")], indirect=True, ids=" ".join)
ROOT = Path(__file__).parents[2]
PROMPTS = {"query": "Câu hỏi: ", "document": ""}


@pytest.fixture(scope="module", params=[("cls", "tanh"), ("mean", "identity")], ids=" ".join)
def model(request, tiny_base) -> SentenceTransformer:
    """ViCLSR in both shapes, with prompts."""
    pooling, activation = request.param
    torch.manual_seed(1)
    model = build_viclsr(tiny_base, activation, pooling=pooling).cpu()
    model.prompts = dict(PROMPTS)
    return model


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("onnx")).parent


@pytest.fixture(scope="module")
def encoder(folder) -> OnnxEncoder:
    return OnnxEncoder(folder, threads=1)


def distance(a, b) -> float:
    return np.abs(a - b).max()


@needs_onnx
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_graph_equals_torch_for_batches_of_all_lengths(model, encoder, batch_size):
    result = encoder.encode(TEXTS, batch_size=batch_size)
    assert result.dtype == np.float32 and result.shape == (len(TEXTS), 32)
    assert distance(result, model.encode(TEXTS)) < 1e-5


@needs_onnx
def test_one_text_and_none(model, encoder):
    assert distance(encoder.encode(TEXTS[0]), model.encode(TEXTS[0])) < 1e-5
    assert encoder.encode(TEXTS[0]).shape == (32,)
    assert encoder.encode([]).shape == (0, 32)


@needs_onnx
def test_texts_in_any_container(encoder):
    expected = encoder.encode(SENTENCES)
    for texts in (iter(SENTENCES), pd.Series(SENTENCES, index=range(5, 13)), np.array(SENTENCES), tuple(SENTENCES)):
        assert np.array_equal(encoder.encode(texts), expected)
    with pytest.raises(ValueError, match=r"a DataFrame with the columns \['text'\]: pass one of its columns"):
        encoder.encode(pd.DataFrame({"text": SENTENCES}))
    with pytest.raises(TypeError, match="input 0 is not a text but dict"):
        encoder.encode({"text": "Trời mưa."})


def test_prompts_and_their_default(model, encoder, monkeypatch):
    plain, query = model.encode(TEXTS), model.encode(TEXTS, prompt_name="query")
    assert distance(plain, query) > 0.01
    assert distance(encoder.encode(TEXTS, prompt_name="query"), query) < 1e-5
    assert distance(encoder.encode(TEXTS, prompt="Câu hỏi: "), query) < 1e-5
    monkeypatch.setattr(encoder, "default_prompt_name", "query")
    assert distance(encoder.encode(TEXTS), query) < 1e-5
    assert distance(encoder.encode(TEXTS, prompt_name="document"), plain) < 1e-5
    with pytest.raises(ValueError, match=r"no prompt 'passage'.*'document', 'query'"):
        encoder.encode(TEXTS, prompt_name="passage")


@needs_onnx
def test_composed_and_decomposed_letters_are_the_same(encoder):
    decomposed = [unicodedata.normalize("NFD", text) for text in SENTENCES]
    assert decomposed != SENTENCES
    assert distance(encoder.encode(decomposed), encoder.encode(SENTENCES)) < 1e-6


@needs_onnx
def test_similarity_is_the_models(model, encoder, monkeypatch):
    a, b = model.encode(TEXTS[:3]), model.encode(TEXTS[3:8])
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        model.similarity_fn_name = name
        monkeypatch.setattr(encoder, "similarity_fn_name", name)
        assert distance(encoder.similarity(a, b), model.similarity(a, b).numpy()) < 1e-5
    model.similarity_fn_name = "cosine"


@needs_onnx
def test_eight_bits_are_close_and_small(model, folder, caplog, monkeypatch):
    with caplog.at_level(logging.INFO), monkeypatch.context() as patch:
        patch.setattr(logging.root, "handlers", [])
        logged = quantize_onnx(folder)
        assert logging.root.handlers == []  # so that basicConfig still works
    file = quantize_onnx(folder)
    assert not caplog.records and file == logged
    result = OnnxEncoder(folder, file.name, threads=1).encode(TEXTS)
    assert (result * model.encode(TEXTS)).sum(axis=1).min() > 0.99
    assert file.stat().st_size < (folder / "model.onnx").stat().st_size


@needs_onnx
@needs_openvino
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_openvino_runs_the_same_graph(model, folder, dtype, tolerance):
    result = OnnxEncoder(folder, runtime="openvino", dtype=dtype, threads=1).encode(TEXTS, batch_size=4)
    assert distance(result, model.encode(TEXTS)) < tolerance


@needs_onnx
def test_the_model_stays_what_it_was(tiny_model, tmp_path):
    """Also: other weights than float32, training mode, a default prompt, fewer dimensions."""
    tiny_model.bfloat16().train()
    tiny_model.truncate_dim, tiny_model.default_prompt_name = 8, "query"
    tiny_model.prompts = dict(PROMPTS)
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    export_onnx(tiny_model, tmp_path)
    assert tiny_model.training and tiny_model.dtype == torch.bfloat16
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())
    result = OnnxEncoder(tmp_path).encode(TEXTS)
    assert result.shape == (len(TEXTS), 8)
    assert distance(result, tiny_model.float().encode(TEXTS)) < 1e-5


@needs_onnx
@one_shape
def test_large_weights_lie_beside_the_graph(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_ONE_FILE", 1000)
    export_onnx(model, tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size > 1000
    assert distance(OnnxEncoder(tmp_path).encode(TEXTS), model.encode(TEXTS)) < 1e-5
    eight_bits = OnnxEncoder(tmp_path, quantize_onnx(tmp_path).name)
    assert (eight_bits.encode(TEXTS) * model.encode(TEXTS)).sum(axis=1).min() > 0.99


@needs_onnx
def test_segmented_words_and_vectors_without_unit_length(tiny_base, tmp_path):
    pytest.importorskip("pyvi", reason='needs pip install "st-vi[vi]"')
    transformer = WordSegmentedTransformer(str(tiny_base))
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean"), MLPHead(32, 6)], prompts=PROMPTS).cpu()
    export_onnx(model, tmp_path)
    encoder = OnnxEncoder(tmp_path)
    for name in PROMPTS:
        assert distance(encoder.encode(TEXTS, prompt_name=name), model.encode(TEXTS, prompt_name=name)) < 1e-5
    lengths = np.linalg.norm(encoder.encode(TEXTS, normalize_embeddings=True), axis=1)
    assert distance(lengths, 1) < 1e-5


WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

find, blocked = PathFinder.find_spec, ("torch", "sentence_transformers")
PathFinder.find_spec = lambda name, *rest: None if name.split(".")[0] in blocked else find(name, *rest)

import numpy as np
from st_vi.encoding import OnnxEncoder

texts = sys.argv[1].split("|")
np.save(sys.argv[2], [OnnxEncoder(folder, threads=1).encode(texts) for folder in sys.argv[3:]])
assert not {*blocked} & {name.split(".")[0] for name in sys.modules}
"""


@pytest.mark.slow
@needs_onnx
@one_shape
def test_it_runs_where_torch_is_not_installed(folder, tmp_path):
    """With word segmentation and without."""
    pytest.importorskip("pyvi", reason='needs pip install "st-vi[vi]"')
    segmenting = shutil.copytree(folder, tmp_path / "segmenting")
    config = json.loads((segmenting / CONFIG_FILE).read_text(encoding="utf-8"))
    (segmenting / CONFIG_FILE).write_text(json.dumps(config | {"segment_words": True}), encoding="utf-8")
    command = [sys.executable, "-c", WITHOUT_TORCH, "|".join(SENTENCES), tmp_path / "found.npy", folder, segmenting]
    run = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = np.load(tmp_path / "found.npy")
    assert np.array_equal(found, [OnnxEncoder(place, threads=1).encode(SENTENCES) for place in (folder, segmenting)])
    assert distance(*found) > 1e-3


class Own(nn.Module):
    """Somebody's own module, which nobody has checked."""

    def forward(self, features):
        return features


def refused(modules, tmp_path, match, **kwargs):
    with pytest.raises(ValueError, match=match):
        export_onnx(SentenceTransformer(modules=modules, device="cpu", **kwargs), tmp_path)
    assert not list(tmp_path.glob("*.onnx*"))


def test_foreign_modules_and_other_inputs_are_refused(tiny_base, tmp_path):
    transformer, pooling = Transformer(str(tiny_base)), Pooling(32, "mean")
    refused([transformer, pooling, Own()], tmp_path, r"test_onnx\.Own is a module of neither")
    refused([BoW(["xin", "chào"])], tmp_path, r"begins with .*\.BoW")
    refused([transformer, Pooling(32, "mean", include_prompt=False)], tmp_path, "Pooling leaves out the prompt")


def test_pictures_are_refused(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    model = build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=224 * 224)
    with pytest.raises(ValueError, match=r"only models for text.*Qwen2VLTransformer and takes .*image"):
        export_onnx(model, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@needs_onnx
def test_what_cannot_be_exported_is_named(tiny_base, tmp_path, monkeypatch):
    transformer, pooling = Transformer(str(tiny_base)), Pooling(32, "mean")
    lengths_needed = [transformer, LSTM(32, 16), pooling]
    refused(lengths_needed, tmp_path, r"^\S*lstm\.LSTM cannot be exported to ONNX: 'sentence_lengths'$")
    monkeypatch.setattr(
        Normalize, "forward", lambda _, features: features if features["sentence_embedding"][0, 0] else {}
    )
    refused([transformer, pooling, Normalize()], tmp_path, r"^\S*normalize\.Normalize cannot be exported to ONNX: ")


@needs_onnx
def test_a_graph_with_other_vectors_is_refused(tiny_base, tmp_path):
    """The tokenizer alone does not know of settings that a module keeps for itself."""
    transformer = Transformer(str(tiny_base), processing_kwargs={"text": {"max_length": 4}})
    refused([transformer, Pooling(32, "mean"), Normalize()], tmp_path, "vectors differ from the model's")


@pytest.mark.slow
@needs_onnx
@one_shape
def test_copies_and_autocast(encoder, model, tmp_path):
    copied = pickle.loads(pickle.dumps(encoder))  # as for another process
    np.testing.assert_array_equal(copied.encode(TEXTS), encoder.encode(TEXTS))
    with torch.autocast("cpu", torch.bfloat16):
        export_onnx(model, tmp_path)
    assert distance(OnnxEncoder(tmp_path, threads=1).encode(TEXTS), model.encode(TEXTS)) < 1e-4


@pytest.mark.slow
@needs_onnx
def test_a_second_export_to_a_folder_is_not_mixed_with_the_first(tiny_base, tmp_path, monkeypatch):
    torch.manual_seed(1)
    first, second = (build_viclsr(tiny_base).cpu() for _ in "ab")
    export_onnx(first, tmp_path)
    quantize_onnx(tmp_path)
    held, save, there = pickle.dumps(OnnxEncoder(tmp_path)), onnx_export._save_config, []

    def look_and_save(model, file, export):
        there.append(file.exists())
        save(model, file, export)

    monkeypatch.setattr(onnx_export, "_save_config", look_and_save)
    export_onnx(second, tmp_path)
    assert there == [False]  # an export that ends before has no settings of another beside its graph
    for stale in (lambda: pickle.loads(held), lambda: OnnxEncoder(tmp_path, "model_int8.onnx")):
        with pytest.raises(ValueError, match=r"model\w*\.onnx is of another model than the tokenizer and settings"):
            stale()
    quantize_onnx(tmp_path)
    assert (OnnxEncoder(tmp_path, "model_int8.onnx").encode(TEXTS) * second.encode(TEXTS)).sum(axis=1).min() > 0.95


@needs_onnx
def test_bad_calls_say_what_is_wrong(encoder, folder, tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got 0"):
        encoder.encode(TEXTS, batch_size=0)
    with pytest.raises(TypeError, match="input 1 is not a text but float"):
        encoder.encode(["a", float("nan")])
    with pytest.raises(FileNotFoundError, match=r"has no model\.onnx: .*export_onnx writes it"):
        OnnxEncoder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no model\.onnx"):
        quantize_onnx(tmp_path)
    with pytest.raises(ValueError, match="no 'onnxruntime' in 'bfloat16', but onnxruntime in float32, openvino in"):
        OnnxEncoder(folder, dtype="bfloat16")


def test_missing_packages_are_named(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for call in (export_onnx, lambda _, path: quantize_onnx(path)):
        with pytest.raises(ImportError, match=r'pip install "st-vi\[onnx\]"'):
            call(tiny_model, tmp_path)


@needs_onnx
@pytest.mark.parametrize("name", ["model.onnx", "../other.onnx", "int8"])
def test_a_quantized_graph_replaces_no_other(folder, name):
    before = (folder / "model.onnx").read_bytes()
    with pytest.raises(ValueError, match="file_name must be the name of a new graph in the folder"):
        quantize_onnx(folder, name)
    assert (folder / "model.onnx").read_bytes() == before and not (folder.parent / "other.onnx").exists()


@needs_onnx
def test_a_damaged_graph_is_named(folder, tmp_path):
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"model\.onnx cannot be read by onnxruntime: export the model again"):
        OnnxEncoder(damaged)
