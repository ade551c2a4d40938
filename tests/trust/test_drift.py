"""Models that earlier versions saved load and encode as they did; the versions that pyproject.toml allows are true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer

import st_vi
from st_vi import load
from tests.conftest import SENTENCES
from tests.trust.fixtures.make import PROMPTS, models

FIXTURES = Path(__file__).parent / "fixtures"
SAVED = sorted(file.parent for file in FIXTURES.glob("*/*/modules.json"))
saved = pytest.mark.parametrize("folder", SAVED, ids=lambda folder: f"{folder.parent.name} {folder.name}")


def expected(folder: Path) -> dict[str, list[list[float]]]:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


@saved
def test_a_saved_model_encodes_as_it_did(folder):
    model = load(folder, device="cpu")
    told = expected(folder)
    assert model.prompts.items() >= PROMPTS.items()
    for prompt, vectors in ((None, told["embeddings"]), ("ocr", told["with the prompt ocr"])):
        actual = model.encode(SENTENCES, prompt_name=prompt, convert_to_tensor=True)
        torch.testing.assert_close(actual, torch.tensor(vectors), atol=1e-5, rtol=0)


@saved
def test_stock_reads_it_too(folder):
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
    actual = model.encode(SENTENCES, convert_to_tensor=True)
    torch.testing.assert_close(actual, torch.tensor(expected(folder)["embeddings"]), atol=1e-5, rtol=0)


def test_the_vectors_could_tell_a_change():
    """Texts, shapes and prompts differ by far more than the tolerance, and so does another model of the same shape."""
    for folder in SAVED:
        told = {key: torch.tensor(vectors) for key, vectors in expected(folder).items()}
        plain, prompted = told["embeddings"], told["with the prompt ocr"]
        torch.testing.assert_close(plain.norm(dim=1), torch.ones(len(SENTENCES)))
        assert torch.pdist(plain).min() > 0.01
        assert (plain - prompted).norm(dim=1).min() > 0.01


def test_this_version_has_its_models():
    """A release saves its own: `python -m tests.trust.fixtures.make`."""
    assert {folder.name for folder in SAVED if folder.parent.name == st_vi.__version__} == set(models())
    assert sum(file.stat().st_size for file in (FIXTURES / st_vi.__version__).rglob("*")) < 300_000
