"""`MLPHead` against hand-written equations, through save and load, and as stock modules."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer

from st_vi.modules import MLPHead
from tests.conftest import SENTENCES

SHAPES = [
    {"num_layers": layers, "activation": activation, "layer_norm": norm}
    for layers in (1, 2)
    for activation in ("identity", "tanh", "gelu")
    for norm in (False, True)
]


def by_hand(head, c):
    state = head.state_dict()
    linears = [k for k in state if state[k].ndim == 2]
    act = {"identity": lambda x: x, "tanh": torch.tanh, "gelu": F.gelu}[head.activation]

    def layer(x, name):
        x = x @ state[name].T + state[name.replace("weight", "bias")]
        return F.layer_norm(x, (head.out_features,)) if head.layer_norm else x  # a fresh LayerNorm has weight 1, bias 0

    x = act(layer(c, linears[0]))
    return layer(x, linears[1]) if head.num_layers == 2 else x


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_equation(shape):
    head, c = MLPHead(6, 4, **shape), torch.randn(3, 6)
    torch.testing.assert_close(head({"sentence_embedding": c})["sentence_embedding"], by_hand(head, c))


@pytest.mark.parametrize("shape", SHAPES)
def test_stock_modules_compute_the_same(shape):
    head, c = MLPHead(6, 4, **shape), torch.randn(3, 6)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    features = {"sentence_embedding": c}
    for module in head.to_stock():
        assert type(module).__module__.startswith("sentence_transformers.")
        features = module(features)
    torch.testing.assert_close(features["sentence_embedding"], head({"sentence_embedding": c})["sentence_embedding"])


@pytest.mark.parametrize("safe_serialization", [True, False])
def test_save_and_load_are_exact(tmp_path, safe_serialization):
    head = MLPHead(6, 4, num_layers=2, activation="gelu", layer_norm=True)
    head.save(str(tmp_path), safe_serialization=safe_serialization)
    loaded = MLPHead.load(str(tmp_path))
    assert loaded.get_config_dict() == head.get_config_dict()
    assert loaded.get_embedding_dimension() == 4
    for name, value in head.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_round_trip_through_modules_json(tiny_model, tmp_path):
    tiny_model.save_pretrained(str(tmp_path))
    modules = json.loads((tmp_path / "modules.json").read_text())
    assert modules[2]["type"] == "st_vi.modules.mlp_head.MLPHead"
    config = json.loads((tmp_path / "config_sentence_transformers.json").read_text())
    assert config["requirements"] == {"st-vi": ">=0.1"}
    loaded = SentenceTransformer(str(tmp_path), trust_remote_code=True, device="cpu")
    assert (loaded.encode(SENTENCES) == tiny_model.encode(SENTENCES)).all()
    assert loaded.get_embedding_dimension() == 32


def test_a_head_starts_as_the_identity():
    c = torch.randn(3, 6)
    for activation, function in (("identity", lambda x: x), ("tanh", torch.tanh)):
        head = MLPHead(6, 6, activation=activation, init="identity")
        assert torch.equal(head({"sentence_embedding": c})["sentence_embedding"], function(c))
        assert all(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize("settings", [{"out_features": 4}, {"num_layers": 2}, {"layer_norm": True}])
def test_no_other_head_starts_as_the_identity(settings):
    with pytest.raises(ValueError, match="can start as the identity"):
        MLPHead(**{"in_features": 6, "out_features": 6} | settings, init="identity")


def test_the_start_is_not_saved(tmp_path):
    head = MLPHead(6, 6, init="identity")
    torch.nn.init.normal_(head.layers[0].weight)
    head.save(str(tmp_path))
    assert torch.equal(MLPHead.load(str(tmp_path)).layers[0].weight, head.layers[0].weight)


def test_bad_arguments():
    with pytest.raises(ValueError, match="init must be one of"):
        MLPHead(4, 4, init="zeros")
    with pytest.raises(ValueError, match="in_features must be a whole number of at least 1, got 0"):
        MLPHead(0, 4)
    with pytest.raises(ValueError, match=r"out_features must be a whole number of at least 1, got 2\.5"):
        MLPHead(4, 2.5)
    with pytest.raises(ValueError, match="num_layers"):
        MLPHead(4, 4, num_layers=3)
    with pytest.raises(ValueError, match="activation"):
        MLPHead(4, 4, activation="relu")
