"""A model whose files do not fit its configuration is not loaded with random weights: it is an error."""

from __future__ import annotations

import json
import threading

import pytest
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForSequenceClassification, XLMRobertaConfig, XLMRobertaForMaskedLM

from st_vi import build_viclsr, build_vipolyqwen, load
from st_vi.modules.whole_backbone import whole_backbone
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def rename(folder, change):
    """Save the weights under the names that `change` gives; without those for which it gives None."""
    file = folder / "model.safetensors"
    weights = {change(name): value for name, value in load_file(file).items()}
    save_file({name: value for name, value in weights.items() if name}, file, metadata={"format": "pt"})


@pytest.fixture
def saved(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path), create_model_card=False)
    return tmp_path


BROKEN = [
    (lambda name: f"base_model.model.{name}", r"lacks \d+ weights .*other names \(base_model.model."),
    (lambda name: name.replace("layer.1.", "layer.7."), r"lacks 16 weights .*encoder.layer.1.*random"),
    (lambda name: None if "layer.1.output.dense.bias" in name else name, r"lacks 1 weights .*layer.1.output.dense"),
]


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_missing_weights_are_an_error(saved, change, message):
    rename(saved, change)
    with pytest.raises(ValueError, match=message):
        load(saved)


def test_weights_without_a_place_are_an_error(saved):
    """With fewer layers in the configuration it would be another model."""
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(ValueError, match=r"has 16 weights for which .*encoder.layer.1.*left out"):
        load(saved)


def test_a_base_is_checked_too(tiny_base, tmp_path):
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    rename(tmp_path, lambda name: f"wrong.{name}")
    with pytest.raises(ValueError, match="would be random"):
        build_viclsr(tmp_path)


def test_a_simcse_head_is_not_dropped(tiny_base, tmp_path):
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    head = {"mlp.dense.weight": weights["embeddings.word_embeddings.weight"][:32].clone()}
    save_file(weights | head, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for way in (load, build_viclsr):
        with pytest.raises(ValueError, match="import_viclsr"):
            way(tmp_path)


def test_a_language_model_is_a_base(tiny_base, tmp_path):
    """Its own head has no place, its pooler is missing, and nothing reads either."""
    for file in tiny_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    XLMRobertaForMaskedLM(XLMRobertaConfig.from_pretrained(tiny_base)).save_pretrained(tmp_path)
    assert build_viclsr(tmp_path).encode("Trời mưa.").shape == (32,)


@pytest.mark.parametrize("way", [load, lambda path: SentenceTransformer(str(path), trust_remote_code=True)])
def test_qwen2_vl_is_read_whole_by_stock_too(tmp_path, way):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    build_vipolyqwen(base, embedding_dimension=24).save_pretrained(str(tmp_path / "saved"))
    rename(tmp_path / "saved", lambda name: f"base_model.model.{name}")
    with pytest.raises(ValueError, match="would be random"):
        way(tmp_path / "saved")


def test_threads_that_read_other_models_are_not_checked(tiny_base):
    """A new head is no mistake of theirs."""
    found = []

    def read():
        found.append(AutoModelForSequenceClassification.from_pretrained(tiny_base))

    with whole_backbone():
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert found


def test_several_threads_load_at_once(saved):
    expected, found = load(saved).encode(SENTENCES), []
    threads = [threading.Thread(target=lambda: found.append(load(saved).encode(SENTENCES))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all((vectors == expected).all() for vectors in found)
