"""``load(…, backend="onnx")``: a stock model with the same answers, exported once."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

from st_vi import AttentionPooling, MLPHead, build_viclsr, load
from st_vi.encoding import QueryEncoder, encode_corpus
from st_vi.graphs import kept
from st_vi.graphs.encoder import CONFIG_FILE
from st_vi.graphs.kept import on_graph
from st_vi.identity import model_identity
from tests.conftest import SENTENCES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))), reason='needs pip install "st-vi[onnx]"'
    ),
]

TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES)]
PROMPTS = {"query": "Câu hỏi: ", "document": ""}


def distance(a, b) -> float:
    return np.abs(a - b).max()


@pytest.fixture(scope="module", params=["viclsr", "attention"])
def saved(request, tiny_base, tmp_path_factory) -> Path:
    """A stock head and a pooling of ours, with prompts."""
    torch.manual_seed(1)
    if request.param == "viclsr":
        model = build_viclsr(tiny_base).cpu()
    else:
        parts = [Transformer(str(tiny_base)), AttentionPooling(32, num_heads=2), MLPHead(64, 16), Normalize()]
        model = SentenceTransformer(modules=parts, device="cpu")
    model.prompts = dict(PROMPTS)
    path = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(str(path))
    return path


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """One cache for this file, so that every model is exported once."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("ST_VI_CACHE", str(folder))
        yield folder


def exact(path: Path, **kwargs) -> SentenceTransformer:
    return load(path, backend="onnx", model_kwargs={"dtype": "float32"}, **kwargs)


def test_the_same_answers_in_float32(saved):
    model, graph = load(saved, device="cpu"), exact(saved)
    for prompt in (None, *PROMPTS):
        assert distance(graph.encode(TEXTS, prompt_name=prompt), model.encode(TEXTS, prompt_name=prompt)) < 1e-5
    assert graph.encode(TEXTS[0]).shape == model.encode(TEXTS[0]).shape
    assert graph.prompts == model.prompts and graph.similarity_fn_name == model.similarity_fn_name
    assert graph.max_seq_length == model.max_seq_length and graph.get_embedding_dimension()
    assert distance(graph.encode([{"text": TEXTS[0]}]), model.encode(TEXTS[:1])) < 1e-5


def test_dimensions_can_be_cut_later(saved):
    model, graph = load(saved, device="cpu", truncate_dim=8), exact(saved, truncate_dim=8)
    assert distance(graph.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    graph.truncate_dim = model.truncate_dim = 4
    assert graph.encode(TEXTS).shape == (len(TEXTS), 4) and graph.get_embedding_dimension() == 4
    assert distance(graph.encode(TEXTS), model.encode(TEXTS)) < 1e-5


def test_a_lower_limit_of_tokens(saved):
    model, graph = load(saved, device="cpu"), exact(saved)
    graph.max_seq_length = model.max_seq_length = 5
    assert distance(graph.encode(TEXTS), model.encode(TEXTS)) < 1e-5
    with pytest.raises(ValueError, match="exported for at most 64 tokens, got 65"):
        graph.max_seq_length = 65


@pytest.mark.parametrize("fast", [True, False])
def test_eight_bits_where_the_cpu_has_instructions_for_them(saved, monkeypatch, fast):
    monkeypatch.setattr(kept, "multiplies_bytes", lambda: fast)
    graph = load(saved, backend="onnx")
    assert graph[0].file_name == ("model_int8.onnx" if fast else "model.onnx")
    assert load(saved, backend="onnx", model_kwargs={"dtype": "int8"})[0].file_name == "model_int8.onnx"
    expected, found = load(saved, device="cpu").encode(TEXTS), graph.encode(TEXTS)
    assert (expected * found).sum(axis=1).min() > 0.99


def test_torch_says_what_the_cpu_can_do():
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if "avx512_vnni" not in known:
        pytest.skip("torch does not tell in public")
    assert kept.multiplies_bytes() == known["avx512_vnni"]


@pytest.fixture
def exports(saved, tmp_path, monkeypatch):
    """A cache of its own, filled by copying the graph instead of exporting it; the list of exports."""
    done = exact(saved)[0].folder
    calls = []

    def export(model, folder):
        calls.append(folder)
        shutil.copytree(done, folder, dirs_exist_ok=True)

    monkeypatch.setattr(kept, "export_onnx", export)
    monkeypatch.setattr(kept, "quantize_onnx", lambda folder: folder / kept.INT8_FILE)
    monkeypatch.setenv("ST_VI_CACHE", str(tmp_path / "cache"))
    return calls


def test_vectors_too_far_away_are_not_taken_silently(saved, exports, monkeypatch, caplog):
    monkeypatch.setattr(kept, "multiplies_bytes", lambda: True)
    monkeypatch.setattr(kept, "lowest_cosine", lambda *_: 0.98)
    with caplog.at_level(logging.WARNING):
        assert load(saved, backend="onnx")[0].file_name == "model.onnx"
    assert "cosines below 0.99: float32 is used" in caplog.text
    with pytest.raises(ValueError, match=r"cosines below 0\.99: use dtype 'float32'"):
        load(saved, backend="onnx", model_kwargs={"dtype": "int8"})


def test_exported_once_and_again_for_other_weights(saved, exports, tmp_path):
    model = load(saved, device="cpu")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(on_graph, [model] * 4))
    assert len(exports) == 1
    model[0].model.embeddings.word_embeddings.weight.data.mul_(1.01)
    on_graph(model)
    assert len(exports) == 2 and len(list((tmp_path / "cache" / "onnx").iterdir())) == 2


def test_other_users_may_read_a_graph(saved, exports):
    """Exported while an image of a container is built, it serves another user."""
    before = os.umask(0o022)
    try:
        assert exact(saved)[0].folder.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)


def test_another_process_is_faster(saved, exports, tmp_path, monkeypatch):
    """Its folder is taken, and nothing unfinished stays."""
    export = kept.export_onnx

    def slow(model, folder):
        export(model, folder)
        with monkeypatch.context() as patch:
            patch.setattr(kept, "export_onnx", export)
            kept._export(model, final)

    final = tmp_path / "cache" / "onnx" / exact(saved)[0].folder.name
    shutil.rmtree(final)
    monkeypatch.setattr(kept, "export_onnx", slow)
    assert exact(saved).encode("Trời mưa.").size
    assert [folder.name for folder in final.parent.iterdir()] == [final.name]


def test_a_failed_export_leaves_nothing(saved, exports, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "quantize_onnx", full)
    with pytest.raises(OSError, match="No space left"):
        load(saved, backend="onnx")
    assert not list((tmp_path / "cache" / "onnx").iterdir())


def test_a_cache_that_cannot_be_written_is_named(saved, exports, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ST_VI_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set ST_VI_CACHE to a folder for exported graphs"):
        load(saved, backend="onnx")


def test_a_damaged_graph_is_named(saved, exports):
    graph = exact(saved)
    (graph[0].folder / graph[0].file_name).write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"cannot be read: .*Delete it to export the graph again"):
        exact(saved)
    (graph[0].folder / CONFIG_FILE).unlink()  # as the whole folder appears at once, it was there
    with pytest.raises(ValueError, match=r"cannot be read: .*Delete it to export the graph again"):
        exact(saved)


def test_what_it_cannot_do_is_said(saved, tmp_path):
    graph = exact(saved)
    with pytest.raises(ValueError, match=r"cannot be saved: save the model it was exported from"):
        graph.save_pretrained(str(tmp_path))
    with pytest.raises(TypeError, match="input 1 is not a text but int"):
        graph.encode(["a", 3])
    with pytest.raises(AttributeError, match="tokenizer"):  # the graph has the embeddings of its own tokens
        graph.tokenizer = copy.deepcopy(graph.tokenizer)
    with pytest.raises(ValueError, match="takes no processing_kwargs"):
        graph.encode("a", processing_kwargs={"text": {"max_length": 3}})
    with pytest.raises(ValueError, match=r"runs on the CPU and takes only .*, not device='cuda'"):
        load(saved, backend="onnx", device="cuda")
    with pytest.raises(ValueError, match=r"not model_kwargs \['provider'\]"):
        load(saved, backend="onnx", model_kwargs={"provider": "CUDAExecutionProvider"})
    with pytest.raises(ValueError, match=r"dtype must be one of .*, got 'bfloat16'"):
        load(saved, backend="onnx", model_kwargs={"dtype": "bfloat16"})


def test_copies_and_corpora_know_which_graph(saved, tiny_base, tmp_path):
    graph = exact(saved)
    for limit in (graph.max_seq_length, 4):
        graph.max_seq_length = limit
        for copied in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):  # as for other processes
            assert copied.max_seq_length == limit
            assert distance(copied.encode(TEXTS), graph.encode(TEXTS)) == 0
    encode_corpus(graph, [{"text": text} for text in SENTENCES], tmp_path)
    eight_bits = load(saved, backend="onnx", model_kwargs={"dtype": "int8"})
    assert model_identity(eight_bits) != model_identity(graph)
    torch.manual_seed(2)
    other = build_viclsr(tiny_base).cpu()
    assert model_identity(on_graph(other, "float32")) != model_identity(graph)
    with pytest.raises(ValueError, match="another model"):
        encode_corpus(eight_bits, [{"text": text} for text in SENTENCES], tmp_path)


def test_queries_on_a_graph(saved):
    graph = exact(saved)
    for text in TEXTS:
        assert (
            distance(QueryEncoder(graph).encode(text, prompt_name="query"), graph.encode(text, prompt_name="query"))
            < 1e-6
        )
    pooling = Pooling(32, "mean", include_prompt=False)
    parts = [load(saved, device="cpu")[0], pooling]
    with pytest.raises(ValueError, match="leaves out the prompt's tokens"):
        on_graph(SentenceTransformer(modules=parts, device="cpu"))
