"""One text: the vectors of `encode`, without the work around it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi import AttentionPooling, MLPHead, WordSegmentedTransformer, build_viclsr, build_vipolyqwen
from st_vi.encoding import QueryEncoder
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

TEXTS = [*SENTENCES, "", "a", " ".join(SENTENCES)]
PROMPTS = {"query": "Câu hỏi: ", "document": ""}


def distance(a, b) -> float:
    return np.abs(a - b).max()


def models(base):
    """Heads, poolings, words, fewer dimensions, prompts left out of the pooling, and half precision."""
    yield "viclsr", build_viclsr(base).cpu(), 1e-6
    parts = [Transformer(str(base)), AttentionPooling(32, num_heads=2, include_prompt=False), MLPHead(64, 16)]
    yield "attention", SentenceTransformer(modules=parts, device="cpu"), 1e-6
    parts = [Transformer(str(base)), Pooling(32, "mean", include_prompt=False), Normalize()]
    yield "cut", SentenceTransformer(modules=parts, device="cpu", truncate_dim=8), 1e-6
    yield "bfloat16", build_viclsr(base).cpu().bfloat16(), 1e-6
    pytest.importorskip("pyvi", reason='needs pip install "st-vi[vi]"')
    parts = [WordSegmentedTransformer(str(base)), Pooling(32, "cls"), Normalize()]
    yield "words", SentenceTransformer(modules=parts, device="cpu"), 1e-6


@pytest.mark.slow
def test_the_vectors_are_those_of_encode(tiny_base):
    torch.manual_seed(1)
    for name, model, tolerance in models(tiny_base):
        model.prompts = dict(PROMPTS)
        encoder = QueryEncoder(model)
        for prompt in ({}, {"prompt_name": "query"}, {"prompt": "Tìm: "}, {"prompt": ""}):
            for text in (TEXTS[0], "", TEXTS[-1]):
                expected, found = model.encode(text, **prompt), encoder.encode(text, **prompt)
                assert found.dtype == expected.dtype and found.shape == expected.shape, name
                assert distance(found, expected) <= tolerance, (name, prompt, text)
        model.default_prompt_name = "query"
        assert distance(encoder.encode(TEXTS[0]), model.encode(TEXTS[0], prompt=PROMPTS["query"])) <= tolerance
        assert distance(encoder.encode(TEXTS), model.encode(TEXTS)) <= tolerance


def test_several_texts_in_any_container(tiny_model):
    encoder, expected = QueryEncoder(tiny_model), tiny_model.encode(SENTENCES)
    for texts in (iter(SENTENCES), pd.Series(SENTENCES), np.array(SENTENCES), tuple(SENTENCES)):
        assert distance(encoder.encode(texts), expected) < 1e-6
    assert encoder.encode([]).shape == (0, tiny_model.get_embedding_dimension())
    assert encoder.encode(SENTENCES[:1]).shape == (1, tiny_model.get_embedding_dimension())


def test_dropout_is_off_after_training(tiny_base):
    model = build_viclsr(tiny_base).cpu()
    model[0].model.encoder.layer[0].output.dropout.p = 0.9
    encoder, expected = QueryEncoder(model), model.encode(TEXTS[0])
    model.train()
    assert distance(encoder.encode(TEXTS[0]), expected) < 1e-6
    model[0].train()
    assert distance(encoder.encode(TEXTS[0]), expected) < 1e-6


def test_weights_and_dimensions_may_change(tiny_base):
    model = build_viclsr(tiny_base).cpu()
    encoder, before = QueryEncoder(model), model.encode(TEXTS[0])
    model[2].linear.weight.data.mul_(-1)
    model.truncate_dim = 4
    assert distance(encoder.encode(TEXTS[0]), model.encode(TEXTS[0])) < 1e-6
    assert distance(encoder.encode(TEXTS[0]), before[:4]) > 1e-3


def test_a_text_longer_than_the_limit(tiny_model):
    encoder = QueryEncoder(tiny_model)
    for limit in (64, 5):
        tiny_model.max_seq_length = limit
        for text in (TEXTS[0], " ".join(SENTENCES)):
            assert distance(encoder.encode(text), tiny_model.encode(text)) < 1e-6


def test_a_limit_that_another_call_left_in_the_tokenizer(tiny_model):
    encoder, expected = QueryEncoder(tiny_model), tiny_model.encode(TEXTS[0])
    tiny_model.tokenizer([TEXTS[0]], truncation=True, max_length=5)
    assert distance(encoder.encode(TEXTS[0]), expected) < 1e-6
    limit, tiny_model.max_seq_length = tiny_model.max_seq_length, 5
    tiny_model.encode(TEXTS[0])
    tiny_model.max_seq_length = limit
    assert distance(encoder.encode(TEXTS[0]), expected) < 1e-6


@pytest.mark.parametrize("settings", [{"padding": "max_length"}, {"add_special_tokens": False}], ids=str)
def test_settings_of_the_tokenizer_that_it_does_not_know_itself(tiny_base, settings):
    transformer = Transformer(str(tiny_base), processing_kwargs={"text": settings})
    model = SentenceTransformer(modules=[transformer, Pooling(32, "cls")], device="cpu")
    encoder = QueryEncoder(model)
    for text in TEXTS[:2]:
        assert distance(encoder.encode(text), model.encode(text)) < 1e-6


def test_no_gradients_are_kept(tiny_model):
    seen = []

    class Watch(Module):
        def forward(self, features):
            seen.append(torch.is_grad_enabled())
            return features

        def save(self, *_): ...

    QueryEncoder(SentenceTransformer(modules=[*tiny_model, Watch()], device="cpu")).encode("Trời mưa.")
    assert seen == [False, False]


@pytest.mark.slow
def test_threads_share_an_encoder(tiny_model):
    tiny_model.prompts = dict(PROMPTS)
    encoder = QueryEncoder(tiny_model)
    work = [(text, name) for text in TEXTS for name in PROMPTS] * 5
    expected = [tiny_model.encode(text, prompt_name=name) for text, name in work]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: encoder.encode(pair[0], prompt_name=pair[1]), work))
    assert max(map(distance, found, expected)) < 1e-6


def test_text_for_a_model_with_images(tmp_path):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    model = build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=224 * 224).cpu()
    encoder = QueryEncoder(model)
    path = tmp_path / "anh.png"
    Image.new("RGB", (56, 56)).save(path)
    for text in (SENTENCES[0], str(path)):  # a path is text
        assert distance(encoder.encode(text, prompt_name="ocr"), model.encode({"text": text}, prompt_name="ocr")) < 1e-6
    with pytest.raises(TypeError, match=r"input 0 is not a text but Image: use model\.encode"):
        encoder.encode(Image.new("RGB", (56, 56)))


def test_bad_input_is_named(tiny_model):
    encoder = QueryEncoder(tiny_model)
    with pytest.raises(TypeError, match="input 1 is not a text but int"):
        encoder.encode(["a", 3])
    with pytest.raises(TypeError, match="input 0 is not a text but dict"):
        encoder.encode({"text": "a"})
    with pytest.raises(ValueError, match="nothing to encode in None"):
        encoder.encode(None)
    with pytest.raises(ValueError, match=r"input 0, 'a\\ud800', is no Unicode"):
        encoder.encode("a\ud800")
    with pytest.raises(ValueError, match="there is no prompt 'passage'"):
        encoder.encode("a", prompt_name="passage")
    with pytest.raises(ValueError, match="pass one of its columns"):
        encoder.encode(pd.DataFrame({"text": ["a"]}))
