"""Qwen2-VL-2B as it is, on the meta device: shapes, sizes and learning rates of viPolyQwen, without any weight.

``python -m tests.benchmarks.real_size`` runs a batch through the same model with random weights.
"""

from __future__ import annotations

import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import Qwen2VLModel

from st_vi import DLELoss, Qwen2VLTransformer, build_vipolyqwen
from tests.benchmarks.real_size import learning_rates, optimizer_of, save_processor_and_config

VISION = 665_271_296
LANGUAGE = 1_543_714_304


@pytest.fixture
def build(tmp_path, monkeypatch):
    """`build_vipolyqwen`, with the real class made on the meta device instead of read from files."""

    def on_meta(self, model_name_or_path, transformer_task, config, *args, **kwargs):
        with torch.device("meta"):
            model = Qwen2VLModel(config)
        model.name_or_path = model_name_or_path
        return model

    save_processor_and_config(tmp_path)
    monkeypatch.setattr(Qwen2VLTransformer, "_load_model", on_meta)
    monkeypatch.setattr(SentenceTransformer, "to", lambda self, *args, **kwargs: self)  # meta weights cannot move
    return lambda **settings: build_vipolyqwen(tmp_path, **settings)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_parts_and_sizes(build):
    model = build()
    backbone = model[0].model
    assert type(backbone) is Qwen2VLModel and {p.device.type for p in backbone.parameters()} == {"meta"}
    assert (size(backbone.visual), size(backbone.language_model)) == (VISION, LANGUAGE)
    assert size(backbone) == VISION + LANGUAGE == 2_208_985_600  # "2B"; the output layer is the tied embedding
    assert backbone.get_input_embeddings().weight.shape == (151_936, 1536)  # no resizing: the prefixes take spare rows
    assert model[1].attention_context_vector.shape == (1, 1536)
    assert [tuple(layer.weight.shape) for layer in model[2].layers if isinstance(layer, torch.nn.Linear)] == [
        (1024, 1536),
        (1024, 1024),
    ]
    assert model.get_embedding_dimension() == 1024


def test_the_vision_tower_learns_at_a_tenth(build, tmp_path):
    model = build()
    rest = size(model) - VISION
    counted = learning_rates(model, optimizer_of(model, DLELoss(model), tmp_path / "out"))
    assert {part: {rate: entry["weights"] for rate, entry in rates.items()} for part, rates in counted.items()} == {
        "vision tower": {"2e-06": VISION},
        "all else": {"2e-05": rest},
    }


def test_lora_trains_less_than_one_percent(build, tmp_path):
    pytest.importorskip("peft")
    model = build(lora=True)
    counted = learning_rates(model, optimizer_of(model, DLELoss(model), tmp_path / "out"))
    adapter = sum(p.numel() for p in model[0].parameters() if p.requires_grad)
    assert adapter == 18_464_768 + 5 * 1536
    assert {part: list(rates) for part, rates in counted.items()} == {"all else": ["2e-05"]}
    assert counted["all else"]["2e-05"]["weights"] == adapter + size(model[1]) + size(model[2])
