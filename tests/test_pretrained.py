"""The model that comes with the package: a stock folder, small, and not wrong about the first things it is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer

from st_vi import load, pretrained
from st_vi.data import sample_sts
from st_vi.hub import included_or_same
from st_vi.text import strip_diacritics
from tests.helpers import cards


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer(pretrained("vi-mini"), device="cpu")


def test_the_folder_is_stock_and_small():
    folder = Path(pretrained())
    names = {file.name for file in folder.iterdir()}
    assert {"README.md", "LICENSE-multilingual-e5-small.txt", "modules.json", "model.safetensors"} <= names
    assert "st_vi" not in (folder / "modules.json").read_text()
    assert os.path.getsize(folder / "model.safetensors") <= 26e6
    with safe_open(folder / "model.safetensors", "pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in tensors) <= 13e6


def test_the_code_of_the_cards():
    assert cards.run_code(Path(pretrained("vi-mini")))[0]["vectors"].shape == (2, 384)
    names = cards.run_code(Path(pretrained("poly-mini")))[0]
    scores = names["model"].similarity(names["images"], names["texts"])  # a red circle, also as part of a question
    assert (scores[:, 0] > scores[:, 1] + 0.05).all()


def test_what_it_says_first(model):
    """A flood is nearer to its paraphrase than to women's football, however it is typed."""
    flood, other = "Mưa lớn khiến nhiều tuyến đường ngập sâu.", "Đội tuyển nữ giành vé vào chung kết."
    same = "Đường phố biến thành sông sau trận mưa to."
    vectors = model.encode([flood, same, strip_diacritics(same), strip_diacritics(same).lower(), other])
    near = vectors @ vectors[0]
    assert near[1:4].min() > near[4] + 0.05


def test_loads_by_name_and_in_full_precision(model):
    again = load("vi-mini", device="cpu")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert (again.encode("Xin chào") == model.encode("Xin chào")).all()
    assert type(again) is SentenceTransformer and model.max_seq_length == 512
    with pytest.raises(ValueError, match="no model 'vi-maxi' comes with the package; there are poly-mini, vi-mini"):
        pretrained("vi-maxi")
    with pytest.raises(ValueError, match="no model"):
        pretrained("../pretrained/vi-mini")


def test_a_folder_of_the_same_name_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert included_or_same("vi-mini") == pretrained("vi-mini") and included_or_same("vi-maxi") == "vi-maxi"
    (tmp_path / "vi-mini").mkdir()
    assert included_or_same("vi-mini") == "vi-mini"


@pytest.mark.slow
def test_similarity_follows_people(model):
    rows = sample_sts()
    first, second = (torch.from_numpy(model.encode(rows[column])) for column in ("sentence1", "sentence2"))
    cosine, score = (first * second).sum(dim=1), torch.tensor(rows["score"])
    order = [torch.argsort(torch.argsort(values)).double() for values in (cosine, score)]
    assert torch.corrcoef(torch.stack(order))[0, 1] > 0.55


def test_poly_mini_is_small_and_tells_a_red_circle_from_a_blue_star():
    from st_vi.data.generated.scenes import Scene, Shape, draw

    folder = Path(pretrained("poly-mini"))
    assert sum(file.stat().st_size for file in folder.rglob("*.safetensors")) <= 24e6
    model = load("poly-mini", device="cpu")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    shapes = (Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "xanh dương", "to", (2, 2)))
    pictures = model.encode([draw(Scene((shape,))) for shape in shapes])
    texts = model.encode([f"Trong ảnh có một {shape.name}." for shape in shapes])
    assert (texts @ pictures.T).argmax(axis=1).tolist() == [0, 1]
