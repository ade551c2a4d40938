"""Weights, units and deletions against `encode`, plain softmax and hand-made texts."""

from __future__ import annotations

import dataclasses
import unicodedata

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi.inspection.attention import effective_number, pool_texts, repool, units
from st_vi.inspection.faithfulness import cosine_drift, deletions, maskings
from st_vi.modules import AttentionPooling, MLPHead, Qwen2VLTransformer
from st_vi.text import strip_diacritics
from st_vi.text.units import groups, whole_letters, without
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

TEXTS = ["Trời mưa to ở Hà Nội.", "Con mèo đen 😀 ngủ.", "ạ"]
PROMPT = "cặp câu: "


def attentive(transformer, width, num_heads=1, include_prompt=True, prompts=None):
    torch.manual_seed(0)
    pooling = AttentionPooling(width, num_heads, include_prompt)
    pooling.attention_context_vector.data *= 20  # weights that differ
    head = MLPHead(num_heads * width, 24, num_layers=2, activation="gelu", layer_norm=True)
    modules = [transformer, pooling, head, Normalize()]
    return SentenceTransformer(modules=modules, prompts=prompts or {}, device="cpu")


@pytest.fixture(scope="module")
def encoder(tiny_base):
    return attentive(Transformer(str(tiny_base)), 32, prompts={"pair": PROMPT})


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory):
    return save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))


@pytest.fixture(scope="module")
def qwen(qwen_folder):
    backbone = Qwen2VLTransformer(str(qwen_folder))
    return attentive(backbone, 64, prompts=backbone.default_prompts())


@pytest.fixture(scope="module")
def chat(qwen_folder):
    backbone = Qwen2VLTransformer(str(qwen_folder), template="chat")
    return attentive(backbone, 64, prompts=backbone.default_prompts())


@pytest.fixture(scope="module")
def system_prompts(qwen_folder):
    """The stock module over the same backbone, which makes a system message of the prompt."""
    return attentive(Transformer(str(qwen_folder)), 64, prompts={"ocr": "Đọc chữ:"})


@pytest.fixture(params=["encoder", "qwen", "chat", "system_prompts"])
def model(request):
    return request.getfixturevalue(request.param)


def first_prompt(model):
    return next(prompt for prompt in model.prompts.values() if prompt)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("with_prompt", [True, False])
def test_it_is_the_model(model, form, with_prompt):
    prompt = first_prompt(model) if with_prompt else None
    texts = [unicodedata.normalize(form, text) for text in [*TEXTS, "", "  "]]
    expected = model.encode(texts, prompt=prompt)
    views = pool_texts(model, texts, prompt=prompt, batch_size=2)
    for text, view, embedding in zip(texts, views, expected, strict=True):
        np.testing.assert_allclose(view.embedding, embedding, atol=1e-5)
        alone = model.encode(text, prompt=prompt, output_value=None)
        np.testing.assert_allclose(view.weights, alone["attention_weights"], atol=1e-5)
        np.testing.assert_allclose(view.token_embeddings, alone["token_embeddings"], atol=1e-4)
        assert not view.truncated
        ids = alone["input_ids"].tolist()
        assert model.tokenizer.convert_tokens_to_ids(list(view.read.tokens)) == ids


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("with_prompt", [True, False])
def test_syllables_are_those_of_the_text(model, form, with_prompt):
    """Byte-level tokens are parts of letters here, and the Metaspace tokenizer was not trained on these words."""
    prompt = first_prompt(model) if with_prompt else ""
    for text in TEXTS:
        text = unicodedata.normalize(form, text)
        (view,) = pool_texts(model, [text], prompt=prompt)
        for by in ("syllable", "token"):
            found = units(view, by)
            assert sorted(token for unit in found for token in unit.tokens) == list(range(len(view.weights)))
            for unit in found:
                assert unit.weight == pytest.approx(view.weights[list(unit.tokens)].sum().item(), abs=1e-6)
                assert not unicodedata.category(unit.text[0]).startswith("M")  # no diacritic without its letter
            own = [unit for unit in found if unit.kind == "text"]
            assert "".join(unit.text for unit in own).replace("␣", "") == "".join(text.split())
            if by == "syllable":
                assert [unit.text for unit in own] == text.split()
        of_prefix = [unit.text for unit in units(view) if unit.kind == "prefix" and unit.text != "␣"]
        assert of_prefix == prompt.split()


def test_what_is_special(encoder, qwen, chat):
    def special(model, text, **kwargs):
        (view,) = pool_texts(model, [text], **kwargs)
        return [unit.text for unit in units(view) if unit.kind == "special"]

    assert special(encoder, "Trời mưa.") == ["<s>", "</s>"]
    assert special(qwen, "Trời mưa.", prompt_name="ocr") == []
    assert special(qwen, "") == ["<|endoftext|>"]  # a blank text has no other token
    template = special(chat, "Trời mưa.", prompt_name="ocr")
    assert template[0] == "<|im_start|>" and "<|im_end|>" in template
    (view,) = pool_texts(encoder, ["mưa </s> to"])  # written by the user, and yet special
    kinds = [unit.kind for unit in units(view) if unit.text != "␣"]
    assert kinds == ["special", "text", "special", "text", "special"]
    share = view.weights[[0, -1]].sum() + view.weights[[kind == "special" for kind in view.read.kinds]][1:-1].sum()
    assert view.share("special") == pytest.approx(float(share), abs=1e-6)


@pytest.mark.parametrize("num_heads", [1, 3])
@pytest.mark.parametrize("temperature", [0.2, 5.0])
def test_temperature(tiny_base, num_heads, temperature):
    model = attentive(Transformer(str(tiny_base)), 32, num_heads)
    (view,) = pool_texts(model, [TEXTS[0]], temperature=temperature)
    h, v = view.token_embeddings.double(), model[1].attention_context_vector.detach().double()
    scores = h @ v.T / temperature  # (N, H)
    a = torch.exp(scores) / torch.exp(scores).sum(dim=0)
    torch.testing.assert_close(view.weights.double(), a.mean(dim=1), atol=1e-5, rtol=0)
    pooled = torch.cat([sum(a[i, head] * h[i] for i in range(len(h))) for head in range(num_heads)])
    expected = model[3](model[2]({"sentence_embedding": pooled.float()[None]}))["sentence_embedding"][0]
    torch.testing.assert_close(view.embedding, expected.detach(), atol=1e-5, rtol=0)
    (again,) = repool(model, [view])  # back at the model, without its backbone
    np.testing.assert_allclose(again.embedding, model.encode(TEXTS[0]), atol=1e-5)
    with pytest.raises(ValueError, match="temperature must be above 0"):
        repool(model, [view], temperature=0.0)


def test_prefix_in_the_pool_or_not(model):
    prompt = first_prompt(model)
    with_it, without_it = (
        pool_texts(model, TEXTS[:2], prompt=prompt, include_prompt=include)[1] for include in (True, False)
    )
    is_prefix = torch.tensor([kind == "prefix" for kind in with_it.read.kinds])
    assert is_prefix.any() and not is_prefix.all()
    expected = with_it.weights * ~is_prefix
    torch.testing.assert_close(without_it.weights, expected / expected.sum(), atol=1e-5, rtol=0)
    assert with_it.share("prefix") > 0 and without_it.share("prefix") == 0
    np.testing.assert_allclose(with_it.embedding, model.encode(TEXTS[1], prompt=prompt), atol=1e-5)


def test_a_model_that_leaves_its_prefix_out(tiny_base):
    model = attentive(Transformer(str(tiny_base)), 32, include_prompt=False, prompts={"pair": PROMPT})
    expected = model.encode(TEXTS[0], prompt_name="pair")
    for include in (None, False):  # as stock counts: the first special token goes, too
        (view,) = pool_texts(model, [TEXTS[0]], prompt_name="pair", include_prompt=include)
        np.testing.assert_allclose(view.embedding, expected, atol=1e-5)
    (view,) = pool_texts(model, [TEXTS[0]], prompt_name="pair", include_prompt=True)
    assert (view.weights > 0).all()
    assert np.abs(view.embedding.numpy() - expected).max() > 1e-3


@pytest.mark.parametrize("by", ["syllable", "token"])
def test_deletions_are_the_shorter_texts(model, by):
    prompt = first_prompt(model)
    (view,) = pool_texts(model, [TEXTS[0]], prompt=prompt)
    own = [unit for unit in units(view, by) if unit.kind == "text"]
    drifts = cosine_drift(view, deletions(model, view, own))
    whole = model.encode(TEXTS[0], prompt=prompt)
    words = TEXTS[0].split()
    for number, (unit, drift) in enumerate(zip(own, drifts.tolist(), strict=True)):
        if by == "syllable":
            shorter = " ".join(words[:number] + words[number + 1 :])
        else:
            begin = sum(len(other.text) for other in own[:number] if other.text != "␣")
            shorter = delete_letters(TEXTS[0], begin, unit.text)
        assert drift == pytest.approx(1 - float(whole @ model.encode(shorter, prompt=prompt)), abs=1e-5)
    with pytest.raises(ValueError, match="is not of the text itself"):
        deletions(model, view, [unit for unit in units(view) if unit.kind != "text"])


def delete_letters(text, begin, piece):
    """By counting letters: `begin` of them stay, those of the piece go, and no space is left alone."""
    if piece == "␣":
        raise AssertionError("no lone space is expected in this text")
    kept, seen = "", 0
    for character in text:
        if character.isspace():
            kept += character
            continue
        kept += "" if begin <= seen < begin + len(piece) else character
        seen += 1
    return " ".join(kept.split())


def test_maskings_leave_out_of_the_pool_only(encoder):
    (view,) = pool_texts(encoder, [TEXTS[0]], temperature=2.0)
    chosen = units(view)[2:4]
    for unit, masked in zip(chosen, maskings(encoder, view, chosen), strict=True):
        expected = view.weights.clone()
        expected[list(unit.tokens)] = 0
        torch.testing.assert_close(masked.weights, expected / expected.sum(), atol=1e-5, rtol=0)
        assert masked.token_embeddings is view.token_embeddings
    assert cosine_drift(view, []).shape == (0,)
    opposite = dataclasses.replace(view, embedding=-view.embedding)
    torch.testing.assert_close(cosine_drift(view, [view, opposite]), torch.tensor([0.0, 2.0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "limit"), [("encoder", 24), ("qwen", 24), ("chat", 80)])
def test_truncation_is_reported(request, name, limit):
    model = request.getfixturevalue(name)
    length, model.max_seq_length = model.max_seq_length, limit
    try:
        text = "Trời mưa to " * 20
        (view,) = pool_texts(model, [text], prompt=first_prompt(model))
        assert view.truncated and len(view.weights) == limit
        np.testing.assert_allclose(view.embedding, model.encode(text, prompt=first_prompt(model)), atol=1e-5)
        own = [unit for unit in units(view) if unit.kind == "text"]
        seen = view.read.text[slice(*view.read.seen)]
        assert own and text.startswith(seen) and [unit.text for unit in own] == seen.split()
        for shorter in deletions(model, view, own):  # nothing that was cut off moves in
            assert len(shorter.read.text[slice(*shorter.read.seen)].split()) == len(own) - 1
        model.max_seq_length = 2  # nothing of the text is left
        (view,) = pool_texts(model, [text], prompt=first_prompt(model))
        assert view.truncated and view.read.text[slice(*view.read.seen)] == ""
    finally:
        model.max_seq_length = length


def test_flattened_inputs(encoder):
    """As FlashAttention's backbones have them: all texts in one row."""
    expected = pool_texts(encoder, TEXTS, prompt=PROMPT, include_prompt=False)
    backbone = encoder[0]

    class Flat(torch.nn.Module):
        tokenizer, modalities, model = backbone.tokenizer, backbone.modalities, backbone.model

        def preprocess(self, inputs, prompt=None, **kwargs):
            return backbone.preprocess(inputs, prompt=prompt)

        def forward(self, features):
            features = backbone(features)
            mask = features["attention_mask"].bool()
            flat = {name: features[name][mask][None] for name in ("input_ids", "token_embeddings")}
            ends = torch.nn.functional.pad(mask.sum(dim=1).cumsum(dim=0), (1, 0))
            return flat | {"cu_seq_lens_q": ends, "prompt_length": features["prompt_length"]}

    flat = SentenceTransformer(modules=[Flat(), *list(encoder)[1:]], device="cpu")
    for one, other in zip(expected, pool_texts(flat, TEXTS, prompt=PROMPT, include_prompt=False), strict=True):
        assert one.read == other.read
        torch.testing.assert_close(one.embedding, other.embedding, atol=1e-5, rtol=0)


def test_effective_number():
    assert effective_number(torch.full((7,), 1 / 7)) == pytest.approx(7)
    assert effective_number(torch.tensor([0.0, 1.0, 0.0])) == 1
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    assert effective_number(weights) == pytest.approx(1 / np.prod([w**w for w in (0.5, 0.3, 0.2)]))


def test_models_that_cannot_be_shown(tiny_base, encoder):
    mean = SentenceTransformer(modules=[Transformer(str(tiny_base)), Pooling(32, "mean")], device="cpu")
    with pytest.raises(ValueError, match=r"exactly one AttentionPooling .* Transformer, Pooling"):
        pool_texts(mean, TEXTS)
    with pytest.raises(ValueError, match="expected a list of inputs, got the text 'mưa'"):
        pool_texts(encoder, "mưa")  # three texts of a letter each
    with pytest.raises(ValueError, match="by must be one of"):
        units(pool_texts(encoder, TEXTS)[0], by="word")
    assert pool_texts(encoder, []) == []


def test_letters_and_words():
    text = unicodedata.normalize("NFD", "ở")
    assert [whole_letters(text, span) for span in ((0, 1), (1, 2), (2, 3), (0, 0))] == [(0, 3)] * 3 + [(0, 0)]
    assert groups("", [(0, 0)]) == [[0]]
    assert groups("một hai  ba ", [(0, 5), (5, 7), (7, 12)]) == [[0, 1], [2]]  # one token in two syllables
    assert groups("ab", [(0, 0), (0, 1), (1, 2)], by="token") == [[0, 1], [2]]
    assert [without("a bc d", span) for span in ((0, 1), (1, 4), (4, 6), (2, 3), (0, 6))] == [
        "bc d", "a d", "a bc", "a c d", "",
    ]  # fmt: skip
    assert without("a b", (1, 2)) == "ab"
    for form in ("NFC", "NFD"):
        assert strip_diacritics(unicodedata.normalize(form, "Đặng Thùy Trâm đi Huế?")) == "Dang Thuy Tram di Hue?"


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_batch_has_texts(encoder, batch_size):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
        pool_texts(encoder, TEXTS, batch_size=batch_size)


def test_a_path_is_a_text(qwen, encoder):
    for model in (qwen, encoder):
        (view,) = pool_texts(model, ["anh/meo.png"], prompt="")
        assert torch.allclose(view.embedding, torch.from_numpy(model.encode({"text": "anh/meo.png"})), atol=1e-6)
        assert "meo.png" in view.read.text
