"""Several processes: models survive pickling, and processes give what one gives."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from st_vi import build_vipolyqwen
from tests.clients.conftest import TEXTS
from tests.helpers.processes import forked
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def test_models_pickle(model):
    before = model.encode(TEXTS)  # nothing of a batch is kept in the model
    size = len(pickle.dumps(model))
    model.encode(TEXTS * 20)
    data = pickle.dumps(model)
    assert abs(len(data) - size) < 1000
    np.testing.assert_allclose(pickle.loads(data).encode(TEXTS), before, atol=1e-6)


def test_vipolyqwen_pickles(tmp_path):
    model = build_vipolyqwen(save_tiny_qwen2_vl(tmp_path), embedding_dimension=24)
    inputs = [TEXTS[0], {"text": TEXTS[1], "image": Image.new("RGB", (56, 56), "teal")}]
    before = model.encode(inputs)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(model)).encode(inputs), before, atol=1e-6)


@pytest.mark.parametrize("model", ["attention"], indirect=True)
def test_a_pool_of_processes_gives_the_same_vectors(model, monkeypatch):
    """The model is pickled on its way there; of stock, they are spawned, and each would import torch for seconds."""
    monkeypatch.setattr(torch.multiprocessing, "get_context", lambda method: forked())
    pool = model.start_multi_process_pool(["cpu", "cpu"])
    try:
        by_pool = model.encode(TEXTS, prompt_name="query", pool=pool, chunk_size=2)
        shorter = model.encode(TEXTS, pool=pool, chunk_size=4, truncate_dim=8)
    finally:
        model.stop_multi_process_pool(pool)
    np.testing.assert_allclose(by_pool, model.encode(TEXTS, prompt_name="query"), atol=1e-5)
    np.testing.assert_allclose(shorter, model.encode(TEXTS, truncate_dim=8), atol=1e-5)
