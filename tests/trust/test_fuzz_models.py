"""Texts, images and things that are neither, through tiny models: one finite vector for each, or an error by name."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import strategies as st
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi import AttentionPooling, Qwen2VLTransformer
from st_vi.encoding import encode_by_tokens, encode_corpus
from st_vi.graphs import encoder as onnx
from st_vi.modules import WordSegmentedTransformer
from st_vi.text import is_unicode
from tests.conftest import tiny_tokenizer
from tests.helpers.fuzz import (
    LONG,
    NAN,
    ODD_TEXTS,
    REFUSED,
    SENTENCES,
    SURROGATES,
    files,
    fuzz,
    odd_values,
    outcome,
    texts,
    unicode_texts,
)
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

pytestmark = pytest.mark.slow

CASES = 2_500  # with ST_VI_FUZZ=1

LIKE_PICTURES = ("data:image/png;base64,AAAA",)  # stock takes a text for an image that looks like one
plain_texts = unicode_texts.filter(lambda text: text not in LIKE_PICTURES)


def assert_vectors(vectors: np.ndarray, count: int, size: int) -> None:
    assert vectors.shape == (count, size) and np.isfinite(vectors).all()


def test_texts_of_any_kind(tiny_model):
    """Stock's own `encode`, for what is Unicode: its tokenizers refuse the rest without a name for it."""

    @fuzz(25, batch=st.lists(plain_texts, min_size=16, max_size=16))
    def check(batch):
        vectors = outcome("texts in models", lambda: tiny_model.encode(batch), [], cases=len(batch))
        assert_vectors(vectors, len(batch), 32)

    check()
    assert_vectors(tiny_model.encode(LONG), len(LONG), 32)


def test_texts_by_cost(tiny_model):
    @fuzz(30, batch=st.lists(texts, min_size=8, max_size=8), max_tokens=st.integers(0, 200), prompt=st.none() | texts)
    def check(batch, max_tokens, prompt):
        def call():
            return encode_by_tokens(tiny_model, batch, max_tokens=max_tokens, prompt=prompt)

        found = outcome("texts in models", call, ["input ", "max_tokens", "the prompt"], cases=len(batch))
        bad = not all(map(is_unicode, [*batch, prompt or ""])) or max_tokens < 1 or LIKE_PICTURES[0] in batch
        assert bad if found is REFUSED else not bad
        if found is not REFUSED:
            assert_vectors(found, len(batch), 32)

    check()


def test_values_that_are_no_texts(tiny_model):
    """Alone, so that none hides behind another."""

    @fuzz(60, value=odd_values)
    def check(value):
        found = outcome("texts in models", lambda: encode_by_tokens(tiny_model, [value]), ["input 0"])
        if found is not REFUSED:
            assert_vectors(found, 1, 32)

    check()


def test_word_segmentation(tiny_base):
    model = SentenceTransformer(modules=[WordSegmentedTransformer(str(tiny_base)), Pooling(32)], device="cpu")

    @fuzz(25, batch=st.lists(texts.filter(lambda text: text not in LIKE_PICTURES), min_size=4, max_size=4))
    def check(batch):
        found = outcome("texts in models", lambda: model.encode(batch), ["of the batch"], cases=len(batch))
        assert (found is REFUSED) == (not all(map(is_unicode, batch)))
        if found is not REFUSED:
            assert_vectors(found, len(batch), 32)

    check()


def test_onnx_encoder(tmp_path, monkeypatch):
    """All but the graph, in whose place the mean of the token ids stands."""

    def run(inputs):
        tokens, mask = inputs["input_ids"], inputs["attention_mask"]
        assert tokens.shape == mask.shape and set(np.unique(mask)) <= {0, 1} and mask.any(axis=1).all()
        return np.repeat((tokens * mask).sum(1, keepdims=True) / mask.sum(1, keepdims=True), 4, 1).astype(np.float32)

    tiny_tokenizer().save_pretrained(tmp_path)
    (tmp_path / onnx.MODEL_FILE).touch()
    config = {"max_seq_length": 64, "prompts": {"": ""}, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    config |= {"embedding_dimension": 4, "segment_words": False}
    (tmp_path / onnx.CONFIG_FILE).write_text(json.dumps(config))
    monkeypatch.setitem(onnx._RUNTIMES, ("onnxruntime", "float32"), lambda file, threads: run)
    encoder = onnx.OnnxEncoder(tmp_path)

    @fuzz(
        60,
        batch=st.lists(st.one_of(texts, texts, texts, odd_values), max_size=8),
        prompt=st.none() | texts,
        batch_size=st.integers(0, 5),
    )
    def check(batch, prompt, batch_size):
        def call():
            return encoder.encode(batch, batch_size, prompt=prompt, normalize_embeddings=True)

        found = outcome("texts in models", call, ["input ", "batch_size"], cases=max(1, len(batch)))
        unusable = not all(isinstance(text, str) and is_unicode((prompt or "") + text) for text in batch)
        assert (found is REFUSED) == (unusable or batch_size < 1)
        if found is not REFUSED:
            assert_vectors(found, len(batch), 4)
            for place, text in enumerate(batch[:2]):
                alone = encoder.encode(text, prompt=prompt, normalize_embeddings=True)
                np.testing.assert_allclose(found[place], alone, rtol=1e-5)

    check()


corpus_rows = st.one_of(
    *[st.fixed_dictionaries({"text": texts, "page": odd_values})] * 2,
    *[st.fixed_dictionaries({"text": plain_texts, "page": st.sampled_from([1, 2, None])})] * 4,
    st.sampled_from([{}, None, [], "text", 3, {"page": 1}]),
)


def test_corpora(tiny_model, tmp_path):
    @fuzz(50, rows=st.lists(corpus_rows, max_size=6), bad_row=st.sampled_from(["error", "skip", "skip", "warn"]))
    def check(rows, bad_row):
        output = tmp_path / "out"
        shutil.rmtree(output, ignore_errors=True)

        def call():
            return encode_corpus(tiny_model, rows, output, keep=["page"], shard_rows=4, bad_row=bad_row)

        names = ["column 'text'", "column 'page'", "row ", "the corpus is empty", "bad_row"]
        done = outcome("texts in models", call, names, cases=max(1, len(rows)))
        if done is not REFUSED:
            assert done.rows + done.skipped == len(rows)
            written = Dataset.from_parquet(
                f"{output}/*.parquet", keep_in_memory=True, cache_dir=str(tmp_path / "cache")
            )
            assert_vectors(np.array(written["embedding"][:]), done.rows, 32)

    check()


@pytest.fixture(scope="module")
def tiny_qwen(tmp_path_factory):
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    backbone = Qwen2VLTransformer(str(path), max_pixels=64 * 28 * 28)
    return SentenceTransformer(modules=[backbone, AttentionPooling(64)], device="cpu")


PICTURES = (
    *(Image.new(mode, (40, 30)) for mode in ("1", "P", "RGBA", "CMYK", "LA", "I;16", "F", "LAB", "La")),
    *(Image.new("RGB", size) for size in ((1, 1), (0, 0), (5000, 30), (20_000, 10), (28, 28))),
    *(np.zeros((30, 40, 3), np.uint8), np.full((30, 40, 3), NAN), np.zeros((30, 40)), torch.zeros(3, 30, 40)),
)
user = {"role": "user"}
CONVERSATIONS = (
    *([user | {"content": "Con gì?"}], [user | {"content": [{"type": "text"}]}], [user], [{"content": "a"}], user),
    *(
        [user | {"content": [{"type": "image", "image": PICTURES[0]}]}],
        [user | {"content": [{"image": 3}]}],
        [user | {"content": 3}],
    ),
)
pictures = st.sampled_from(PICTURES)
multimodal = st.one_of(
    *[st.sampled_from(SENTENCES)] * 3,
    *[pictures] * 2,
    *[st.fixed_dictionaries({"text": st.none() | unicode_texts, "image": st.none() | pictures}), unicode_texts] * 2,
    st.fixed_dictionaries({"text": texts, "image": st.lists(pictures, max_size=2)}),
    st.fixed_dictionaries({"text": odd_values}),
    st.fixed_dictionaries({"image": odd_values}),
    st.sampled_from(CONVERSATIONS),
    odd_values,
    texts,
)


STOCK = ("Modality '", "modality")  # what it says before any module is asked: the kind of the input, not which


def test_qwen2_vl(tiny_qwen):
    """In batches of no more than three, since one bad input refuses all."""

    @fuzz(
        170,
        batch=st.lists(multimodal, min_size=1, max_size=3),
        prompt=st.sampled_from([None, None, "<ocr> ", " ", "\ud800"]),
    )
    def check(batch, prompt):
        found = outcome(
            "images in models",
            lambda: tiny_qwen.encode(batch, prompt=prompt),
            ["of the batch", "the prompt", *STOCK],
            cases=len(batch),
        )
        if found is not REFUSED:
            assert_vectors(found, len(batch), 64)

    check()


def test_qwen2_vl_by_cost(tiny_qwen):
    @fuzz(60, batch=st.lists(multimodal, min_size=1, max_size=3), max_tokens=st.sampled_from([1, 64, 4096]))
    def check(batch, max_tokens):
        def call():
            return encode_by_tokens(tiny_qwen, batch, max_tokens=max_tokens)

        found = outcome("images in models", call, ["input "], cases=len(batch))
        if found is not REFUSED:
            assert_vectors(found, len(batch), 64)

    check()


def test_files_of_pictures(tiny_qwen, tmp_path):
    """By their paths, broken in all ways; what cannot be read is refused, whoever tries it."""
    path = tmp_path / "picture.png"

    @fuzz(
        80,
        number=st.integers(0, len(files()) - 1),
        cut=st.sampled_from([0, 0, 1, 20, 200, 10_000]),
        by_cost=st.booleans(),
    )
    def check(number, cut, by_cost):
        path.write_bytes(files()[number][cut // 2 :] if cut % 3 else files()[number][: len(files()[number]) - cut])
        encode = encode_by_tokens if by_cost else SentenceTransformer.encode
        found = outcome("images in models", lambda: encode(tiny_qwen, [str(path)]), [str(path)])
        if found is not REFUSED:
            assert_vectors(found, 1, 64)

    check()


# What was found, and is mended.


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("Trời mưa.\ud83d", r"input 1 of the batch, 'Trời mưa.\\ud83d' is no Unicode text"),
        ({"text": "\ud83d", "image": Image.new("RGB", (8, 8))}, "input 1 of the batch.*is no Unicode text"),
        (Image.new("RGB", (0, 0)), "input 1 of the batch.*it has no pixels"),
        ({"image": 5}, "input 1 of the batch, {'image': 5}: cannot read the image 5"),
        ([user | {"content": [{"type": "text"}]}], "input 1 of the batch.*expected text in 'text', got None"),
        (np.full((30, 40, 3), NAN), "input 1 of the batch.*its values go from nan"),
    ],
)
def test_inputs_that_qwen2_vl_cannot_take_are_named(tiny_qwen, item, message):
    with pytest.raises(ValueError, match=message):
        tiny_qwen[0].preprocess(["Trời mưa.", item])
    with pytest.raises(ValueError, match=r"input 1, |input 0 of the batch, "):  # counted, or alone in its batch
        encode_by_tokens(tiny_qwen, ["Trời mưa.", item])


def test_prompts_that_are_no_text(tiny_qwen, tiny_model):
    for call in (
        lambda: tiny_qwen.encode(["Trời mưa."], prompt="\ud83d"),
        lambda: encode_by_tokens(tiny_model, ["Trời mưa."], prompt="\ud83d"),
    ):
        with pytest.raises(ValueError, match=r"the prompt '\\ud83d' is no Unicode text"):
            call()


@pytest.mark.parametrize("text", SURROGATES[:2])
def test_texts_that_no_tokenizer_takes_are_named(tiny_model, tiny_base, text):
    with pytest.raises(ValueError, match=r"input 1, .*no Unicode text"):
        encode_by_tokens(tiny_model, ["Trời mưa.", text])
    with pytest.raises(ValueError, match=r"input 1 of the batch, .*surrogates not allowed"):
        WordSegmentedTransformer(str(tiny_base)).preprocess(["Trời mưa.", text])


def test_rows_of_a_corpus_that_are_no_rows(tiny_model, tmp_path):
    with pytest.raises(ValueError, match=r"row 1: expected a dict of columns, got 'Nắng\.'"):
        encode_corpus(tiny_model, [{"text": "Mưa."}, "Nắng."], tmp_path / "a")
    for value in (10**30, "\ud83d"):
        with pytest.raises(ValueError, match="column 'page', row 0: this does not fit into"):
            encode_corpus(tiny_model, [{"text": "Mưa.", "page": value}], tmp_path / "b", keep=["page"])


def test_odd_texts_are_in_what_is_drawn():
    assert set(LIKE_PICTURES) < set(ODD_TEXTS)
