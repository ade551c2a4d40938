"""Tokens are made once, ahead of the model, and the vectors stay those of `encode`."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import BoW, Pooling

from st_vi.encoding import encode_by_tokens, encode_corpus
from st_vi.encoding.forward import KeptTokens
from tests.conftest import SENTENCES

TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES), *(text[: 3 + 5 * i] for i, text in enumerate(SENTENCES))]


@pytest.fixture
def counted(monkeypatch):
    """Texts that the model preprocessed, with the thread that did it."""
    calls: list[tuple[str, str]] = []
    preprocess = SentenceTransformer.preprocess

    def watched(self, inputs, *args, **kwargs):
        calls.extend((text, threading.current_thread().name) for text in inputs)
        return preprocess(self, inputs, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "preprocess", watched)
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"normalize": True}, {"prompt": "Tìm: "}], ids=str)
@pytest.mark.parametrize("include_prompt", [True, False])
def test_vectors_are_those_of_stock(tiny_base, counted, settings, include_prompt):
    pooling = Pooling(32, "mean", include_prompt=include_prompt)
    model = SentenceTransformer(modules=[Transformer(str(tiny_base)), pooling], device="cpu", truncate_dim=16)
    found = encode_by_tokens(model, TEXTS, max_tokens=64, **settings)
    texts = [text for text, _ in counted]
    longest = max(TEXTS, key=len)  # alone in the first batch, which stock encodes
    assert sorted(texts) == sorted([*TEXTS, longest])
    stock = {"normalize_embeddings" if name == "normalize" else name: value for name, value in settings.items()}
    assert np.abs(found - model.encode(TEXTS, **stock)).max() < 1e-6


def test_half_precision_and_training_mode(tiny_base):
    parts = [Transformer(str(tiny_base)), Pooling(32, "cls"), Normalize()]
    model = SentenceTransformer(modules=parts, device="cpu").bfloat16()
    expected = model.encode(TEXTS)
    model.train()
    found = encode_by_tokens(model, TEXTS, max_tokens=64)
    assert found.dtype == expected.dtype and np.abs(found - expected).max() < 0.02


def test_what_cannot_be_padded_anew_is_not_kept(tiny_model):
    ids, mask = torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 1], [1, 1, 0]])
    good = {"input_ids": ids, "attention_mask": mask, "modality": "text"}
    for features in (
        {**good, "attention_mask": mask.flip(1)},  # padded on the left
        {**good, "pixel_values": torch.ones(2)},
        {"input_ids": ids},
    ):
        tokens = KeptTokens(tiny_model)
        tokens.add([0, 1], features)
        assert tokens.features([0, 1]) is None
    tokens = KeptTokens(tiny_model)
    tokens.add([5, 7], good)
    assert tokens.features([7, 6]) is None
    found = tokens.features([7, 5])
    assert found["input_ids"].tolist() == [[1, 1, 1], [1, 1, 1]] and found["attention_mask"].tolist() == [
        [1, 1, 0],
        [1, 1, 1],
    ]
    bag = KeptTokens(SentenceTransformer(modules=[BoW(["a"])], device="cpu"))
    bag.add([0], {"sentence_embedding": torch.ones(1, 1)})
    assert bag.features([0]) is None


def test_the_next_shard_is_tokenized_by_another_thread(tiny_model, counted, tmp_path):
    rows = [{"text": f"{text} {number}"} for number, text in enumerate(SENTENCES * 3)]
    encode_corpus(tiny_model, rows, tmp_path, shard_rows=8, max_tokens=64)
    ahead = [text for text, thread in counted if thread.startswith("st_vi-tokens")]
    assert sorted(ahead) == sorted(row["text"] for row in rows)
    assert len(counted) < 2 * len(rows)


def test_an_error_ahead_comes_when_its_shard_does(tiny_model, tmp_path):
    """The shards before it are complete."""
    rows = [{"text": text} for text in [*SENTENCES, *SENTENCES[:3], "\ud800"]]
    with pytest.raises(ValueError, match=r"row 11: .*no Unicode"):
        encode_corpus(tiny_model, rows, tmp_path, shard_rows=8)
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["shard-00000.parquet"]


def test_rows_are_read_where_they_were_made(tiny_model, tmp_path):
    """Sources such as a database connection belong to one thread."""
    threads = set()

    def rows():
        for text in SENTENCES:
            threads.add(threading.current_thread())
            yield {"text": text}

    encode_corpus(tiny_model, rows(), tmp_path, shard_rows=3)
    assert threads == {threading.current_thread()}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_parts_make_the_same_files_as_one_process(tiny_model, tmp_path):
    rows = [{"text": f"{text} {number}", "kept": number} for number, text in enumerate(SENTENCES * 3)]
    settings = {"shard_rows": 5, "keep": ["kept"]}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    encode_corpus(tiny_model, rows, whole, **settings)
    for part in ((2, 2), (1, 2)):  # in any order
        result = encode_corpus(tiny_model, rows, parts, part=part, **settings)
        assert (result.shards, result.rows) == {1: (3, 14), 2: (2, 10)}[part[0]]
    assert {path.name for path in parts.iterdir()} == {path.name for path in whole.iterdir()}
    assert "complete" not in json.loads((parts / "manifest.json").read_text())
    done = encode_corpus(tiny_model, rows, parts, **settings)
    assert done.reused == done.shards == 5
    assert contents(parts) == contents(whole)
    assert encode_corpus(tiny_model, rows, tmp_path / "few", part=(9, 9), **settings).rows == 0


def test_parts_of_rows_that_were_added_in_any_order(tiny_model, tmp_path):
    """The first file, which has room for some of them, is not yet full when another part has written those behind."""
    rows = [{"text": f"{text} {number}"} for number, text in enumerate(SENTENCES * 3)]
    encode_corpus(tiny_model, rows[:2], tmp_path, shard_rows=4)
    for part in ((2, 2), (1, 2)):
        encode_corpus(tiny_model, rows, tmp_path, shard_rows=4, part=part)
    result = encode_corpus(tiny_model, rows, tmp_path, shard_rows=4)
    assert (result.rows, result.reused) == (len(rows), 6)
    ids = [number for path in sorted(tmp_path.glob("*.parquet")) for number in pq.read_table(path)["id"].to_pylist()]
    assert ids == list(range(len(rows)))


def test_parts_at_the_same_time(tiny_model, tmp_path):
    rows = [{"text": f"{text} {number}"} for number, text in enumerate(SENTENCES * 3)]
    with ThreadPoolExecutor(3) as pool:
        runs = [pool.submit(encode_corpus, tiny_model, rows, tmp_path, shard_rows=4, part=(k, 3)) for k in (1, 2, 3)]
    assert sum(run.result().rows for run in runs) == len(rows)
    assert encode_corpus(tiny_model, rows, tmp_path, shard_rows=4).reused == 6


def test_columns_of_other_types_are_found(tiny_model, tmp_path):
    """The first file decides the types of all, also of a part without it."""
    rows = [{"text": text, "kept": number if number < 4 else f"số {number}"} for number, text in enumerate(SENTENCES)]
    with pytest.raises(ValueError, match="column 'kept', row 4: this does not fit into shard-00001"):
        encode_corpus(tiny_model, rows, tmp_path, shard_rows=4, keep=["kept"], part=(2, 2))
    rows[4:] = [row | {"kept": 4} for row in rows[4:]]
    encode_corpus(tiny_model, rows, tmp_path, shard_rows=4, keep=["kept"])
    (tmp_path / "shard-00000.parquet").unlink()
    rows[:4] = [row | {"kept": 0.5} for row in rows[:4]]
    with pytest.raises(ValueError, match=r"shard-00001\.parquet has other types of columns"):
        encode_corpus(tiny_model, rows, tmp_path, shard_rows=4, keep=["kept"])


@pytest.mark.parametrize("part", [(0, 2), (3, 2)])
def test_a_part_that_does_not_exist(tiny_model, tmp_path, part):
    with pytest.raises(ValueError, match=r"part must be .* with k from 1 to n"):
        encode_corpus(tiny_model, [{"text": "a"}], tmp_path, part=part)
