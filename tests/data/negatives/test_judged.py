"""Hardness and false negatives against cosines taken one by one, and against the stock miner."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from st_vi.data import sample_nli
from st_vi.data.negatives import judged
from st_vi.data.negatives.judged import drop_false_negatives, hardness
from st_vi.data.negatives.made import rows_of
from tests.conftest import SENTENCES


def corpus_rows() -> Dataset:
    """Six anchors with two positives each, and the ten positives of the others as negatives."""
    texts = sample_nli("test")["hypothesis"][:12]
    rows = []
    for number, positive in enumerate(texts):
        anchor = SENTENCES[number // 2]
        negatives = [text for other, text in enumerate(texts) if other // 2 != number // 2]
        rows.append({"anchor": anchor, "positive": positive})
        rows[-1] |= {f"negative_{place}": text for place, text in enumerate(negatives, 1)}
    return Dataset.from_list(rows)


def cosine(model: SentenceTransformer, a: str, b: str) -> float:
    u, v = (one_by_one(model, text) for text in (a, b))
    return u @ v / np.linalg.norm(u) / np.linalg.norm(v)


@cache
def one_by_one(model: SentenceTransformer, text: str) -> np.ndarray:
    return model.encode(text).astype(float)


def kept(rows) -> dict[tuple[str, str], set[str]]:
    return {(row.anchor, row.positive): set(row.negatives) for row in rows_of(rows)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "margins",
    [
        {"relative_margin": 0.05},
        {"relative_margin": 0.01},
        {"relative_margin": None, "absolute_margin": 0.1},
        {"relative_margin": 0.1, "absolute_margin": 0.02},
        {"relative_margin": 0.02, "absolute_margin": 0.1},
        {"relative_margin": None, "absolute_margin": -0.05},
    ],
)
def test_against_a_loop(tiny_model, margins):
    data = corpus_rows()
    expected = {}
    for row in data:
        right = [other["positive"] for other in data if other["anchor"] == row["anchor"]]
        lowest = min(cosine(tiny_model, row["anchor"], text) for text in right)
        expected[row["anchor"], row["positive"]] = {
            text
            for name, text in row.items()
            if name.startswith("negative")
            and not cosine(tiny_model, row["anchor"], text) + margins.get("absolute_margin", -9) > lowest
            and not cosine(tiny_model, row["anchor"], text) > lowest - abs(lowest) * (margins["relative_margin"] or -9)
        }
    rows = drop_false_negatives(data, tiny_model, **margins, show_progress_bar=False)
    assert kept(rows) == expected
    left = sum(map(len, expected.values()))
    assert 0 < left < 120
    assert rows.report["negatives read"] == 120 and rows.report["negatives dropped"] == 120 - left


def test_what_stays_is_what_the_stock_miner_takes(tiny_model):
    data = corpus_rows()
    mined = mine_hard_negatives(
        data.select_columns(["anchor", "positive"]), tiny_model, relative_margin=0.05, num_negatives=12, range_max=12,
        output_format="triplet", verbose=False,
    )  # fmt: skip
    by_row: dict[tuple[str, str], set[str]] = {(row["anchor"], row["positive"]): set() for row in data}
    for row in mined:
        by_row[row["anchor"], row["positive"]].add(row["negative"])
    assert by_row == kept(drop_false_negatives(data, tiny_model, show_progress_bar=False))
    assert 0 < sum(map(len, by_row.values())) < 120


def test_a_negative_similarity_of_the_positive(tiny_model, monkeypatch):
    """Stock's rule subtracts from |s⁺|: a factor of 0.95 would raise a bound below 0."""
    monkeypatch.setattr(tiny_model, "similarity_pairwise", lambda a, b: next(values))
    data = Dataset.from_dict({"anchor": ["a"], "positive": ["b"], "negative_1": ["c"], "negative_2": ["d"]})
    values = iter([torch.tensor([-0.2, -0.205, -0.215])])
    assert kept(drop_false_negatives(data, tiny_model, show_progress_bar=False)) == {("a", "b"): {"d"}}


def test_rows_that_lose_every_negative(tiny_model):
    data = Dataset.from_dict({"anchor": ["Mưa to.", "Gió lớn."], "positive": ["Mèo.", "Gió lớn."]})
    data = data.add_column("negative", ["Mưa to.", "Cá lóc nướng trui."])
    rows = drop_false_negatives(data, tiny_model, show_progress_bar=False)
    assert kept(rows) == {("Mưa to.", "Mèo."): set(), ("Gió lớn.", "Gió lớn."): {"Cá lóc nướng trui."}}
    dropped = drop_false_negatives(data, tiny_model, missing_negative="skip", show_progress_bar=False)
    assert list(kept(dropped)) == [("Gió lớn.", "Gió lớn.")]
    assert dropped.report["rows without a negative, skipped"] == 1


def test_every_distinct_text_is_encoded_once(tiny_model, monkeypatch):
    data = corpus_rows()
    monkeypatch.setattr(judged, "_CHUNK", 7)  # more than one chunk of pairs
    seen = {"encode_query": [], "encode_document": []}
    for name, texts in seen.items():
        encode = getattr(tiny_model, name)
        monkeypatch.setattr(tiny_model, name, lambda x, e=encode, t=texts, **kwargs: t.extend(x) or e(x, **kwargs))
    values = hardness(data, tiny_model, show_progress_bar=False)
    assert sorted(seen["encode_query"]) == sorted({*data["anchor"]})
    assert sorted(seen["encode_document"]) == sorted({*data["positive"]})
    for row, value in zip(data, values, strict=True):
        negatives = [cosine(tiny_model, row["anchor"], t) for name, t in row.items() if name.startswith("negative")]
        assert value == pytest.approx(max(negatives) - cosine(tiny_model, row["anchor"], row["positive"]), abs=1e-5)


def test_the_models_prompts_are_used(tiny_model):
    tiny_model.prompts = {"query": "Hỏi: ", "document": "Đáp: "}
    data = Dataset.from_dict({"anchor": ["Mưa?"], "positive": ["Mưa to."], "negative": ["Gió lớn."]})
    expected = cosine(tiny_model, "Hỏi: Mưa?", "Đáp: Gió lớn.") - cosine(tiny_model, "Hỏi: Mưa?", "Đáp: Mưa to.")
    assert hardness(data, tiny_model, show_progress_bar=False) == pytest.approx([expected], abs=1e-5)
    decomposed = data.map(lambda row: {name: unicodedata.normalize("NFD", text) for name, text in row.items()})
    assert hardness(decomposed, tiny_model, show_progress_bar=False) == pytest.approx([expected], abs=1e-5)


def test_what_is_refused(tiny_model):
    data = Dataset.from_dict({"anchor": ["a"], "positive": ["b"]})
    with pytest.raises(ValueError, match="no column begins with 'negative'"):
        drop_false_negatives(data, tiny_model)
    with pytest.raises(ValueError, match="no column begins with 'negative'"):
        hardness(data, tiny_model)
    with pytest.raises(ValueError, match="absolute_margin must be a finite number or None, got nan"):
        drop_false_negatives(data, tiny_model, absolute_margin=float("nan"))
    with pytest.raises(ValueError, match="nothing to judge by"):
        drop_false_negatives(data, tiny_model, relative_margin=None)
