"""The stock OpenVINO backend takes what st_vi saves: head and pooling stay, vectors are those of torch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_vi import build_viclsr, load
from tests.conftest import SENTENCES

# By itself OpenVINO computes in bfloat16 wherever the CPU has it.
EXACT = {"ov_config": {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}}
TEXTS = [*SENTENCES, *(text[: 3 + 5 * i] for i, text in enumerate(SENTENCES))]


@pytest.fixture(scope="module", params=[("cls", "tanh"), ("mean", "identity")], ids=" ".join)
def model(request, tiny_base) -> SentenceTransformer:
    pooling, activation = request.param
    torch.manual_seed(1)
    return build_viclsr(tiny_base, activation, pooling=pooling).cpu()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("viclsr"))
    model.save_pretrained(path)
    return path


def least_cosine(a, b) -> float:
    return float((a * b).sum(axis=1).min())


@pytest.mark.parametrize("loader", [load, SentenceTransformer])
def test_a_saved_model_loads(model, saved, loader):
    exported = loader(saved, backend="openvino", device="cpu", model_kwargs=dict(EXACT))
    assert [type(module) for module in exported] == [type(module) for module in model]
    assert all(type(module).__module__.startswith("sentence_transformers.") for module in exported)
    expected = model.encode(TEXTS)
    assert least_cosine(exported.encode(TEXTS, batch_size=3), expected) > 0.9999
    assert least_cosine(exported.encode(TEXTS[:1]), expected[:1]) > 0.9999


def test_eight_bits_calibrated_on_own_sentences(model, saved, tmp_path):
    """Stock reads the sentences with `datasets`; a folder and the configuration "default" need no network."""
    from sentence_transformers.backend import export_static_quantized_openvino_model

    sentences, output = tmp_path / "sentences", str(tmp_path / "output")
    sentences.mkdir()
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in TEXTS * 4]
    (sentences / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    exported = load(saved, backend="openvino", device="cpu", model_kwargs=dict(EXACT))
    exported.save_pretrained(output)
    source = {"dataset_name": str(sentences), "dataset_config_name": "default"}
    source |= {"dataset_split": "train", "column_name": "text"}
    export_static_quantized_openvino_model(exported, None, output, **source)
    file_name = "openvino/openvino_model_qint8_quantized.xml"
    eight_bits = load(output, backend="openvino", device="cpu", model_kwargs={"file_name": file_name, **EXACT})
    result = eight_bits.encode(TEXTS)
    assert np.abs(result - model.encode(TEXTS)).max() > 1e-5  # or it would not be the quantised one
    assert least_cosine(result, model.encode(TEXTS)) > 0.99
