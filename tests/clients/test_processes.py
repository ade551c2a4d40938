"""Several processes: models survive pickling, and processes give what one gives."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_vi import build_vipolyqwen
from tests.clients.conftest import TEXTS
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

ROOT = Path(__file__).parents[2]

# As a user has it in a file: every process that is spawned runs the file but for the last lines.
SCRIPT = """
import sys

import numpy as np

from st_vi import load


def main(folder, texts):
    model = load(folder, device="cpu")
    alone = model.encode(texts, prompt_name="query")
    pool = model.start_multi_process_pool(["cpu", "cpu"])  # each process imports torch first: some seconds
    by_pool = model.encode(texts, prompt_name="query", pool=pool, chunk_size=2)
    shorter = model.encode(texts, pool=pool, chunk_size=4, truncate_dim=8)
    model.stop_multi_process_pool(pool)
    np.testing.assert_allclose(by_pool, alone, atol=1e-5)
    np.testing.assert_allclose(shorter, model.encode(texts, truncate_dim=8), atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
    print("the same")
"""


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
def test_spawned_processes_give_the_same_vectors(saved, tmp_path):
    script = tmp_path / "encode.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, script, saved, *TEXTS]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert run.stdout.strip() == "the same", run.stderr
