"""Flips and syllables against naive loops; another pooling with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import BoW, Pooling

from st_vi.inspection.flips import (
    find_flips,
    margins_without_syllables,
    repooled,
    syllable_effects,
    without_each_syllable,
)
from st_vi.inspection.rankings import top_k_margins
from st_vi.modules import AttentionPooling, MLPHead
from tests.conftest import SENTENCES


@pytest.fixture
def scores():
    """Two poolings' cosines of 30 queries with 12 documents; multiples of 1/8, so that many tie."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(-8, 9, (30, 12), generator=generator) / 8 for _ in range(2)]


@pytest.fixture
def relevant():
    return torch.randint(0, 12, (30,), generator=torch.Generator().manual_seed(1)).tolist()


@pytest.mark.parametrize("margin", [0.0, 0.125])
def test_flips(scores, relevant, margin):
    k, expected = 3, ([], [])
    for query, right in enumerate(relevant):
        inside = []
        for matrix in scores:
            others = np.sort(np.delete(matrix[query].double().numpy(), right))[::-1]
            inside.append(matrix[query, right].item() - others[k - 1])
        if inside[0] > margin and inside[1] <= -margin:
            expected[0].append(query)
        if inside[1] > margin and inside[0] <= -margin:
            expected[1].append(query)
    assert any(expected)
    flips = find_flips(*(top_k_margins(matrix, relevant, k) for matrix in scores), margin)
    assert (flips.only_a, flips.only_b) == expected
    with pytest.raises(ValueError, match="at least 0"):
        find_flips(torch.zeros(1), torch.zeros(1), margin=-0.1)


def test_margins_without_syllables_of_a_model():
    model = SentenceTransformer(modules=[BoW(vocab=["mưa", "gió", "nắng", "bão"])], device="cpu")
    model.prompts = {"hỏi": "bão "}
    corpus, query = ["mưa gió", "nắng gió", "nắng"], "mưa nắng nắng"
    embedded = model.encode(corpus, convert_to_tensor=True)
    texts = [query, "nắng nắng", "mưa nắng", "mưa nắng"]
    expected = []
    for text in texts:
        vectors = model.encode(["bão " + text, *corpus]).astype(float)
        cosines = [v @ vectors[0] / np.linalg.norm(v) / np.linalg.norm(vectors[0]) for v in vectors[1:]]
        expected.append(cosines[0] - sorted(cosines[1:])[-1])
    margins = margins_without_syllables(model, query, embedded, relevant=0, k=1, prompt_name="hỏi")
    assert margins.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_long_query_does_not_fill_the_memory():
    """All at once, 300 syllables took 1.5 GB with the smallest model."""
    sizes = []
    model = SentenceTransformer(modules=[BoW(vocab=["mưa", "nắng"])], device="cpu")
    model[0].register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0]["sentence_embedding"])))
    margins = margins_without_syllables(model, "mưa nắng " * 100, torch.eye(2), relevant=0, k=1)
    assert len(margins) == 201 and max(sizes) <= 64


def test_the_syllable_that_undoes_a_flip_comes_first():
    a = torch.tensor([0.2, 0.25, -0.05, 0.30])  # A finds the document, but not without the second syllable
    b = torch.tensor([-0.1, -0.3, -0.2, 0.1])  # B does not, but would without the third
    effects = syllable_effects("chợ chưa họp", a, b)
    assert [(effect.syllable, effect.undoes) for effect in effects] == [("chưa", True), ("họp", True), ("chợ", False)]
    # the distance of the margins is 0.3 at first, and then 0.55, 0.15, 0.2
    assert [effect.effect for effect in effects] == pytest.approx([0.15, 0.1, -0.25], abs=1e-6)
    assert syllable_effects("chợ chưa họp", b, a) == effects  # whichever is called A
    assert syllable_effects("chợ", a[:1], b[:1]) == [] == without_each_syllable("chợ")


def test_repooled_shares_all_but_the_pooling(tiny_base):
    pooling = AttentionPooling(32, include_prompt=False)
    model = SentenceTransformer(
        modules=[Transformer(str(tiny_base)), pooling, MLPHead(32, 8)], prompts={"hỏi": "Cô giáo: "}, device="cpu"
    )
    mean = repooled(model, "mean")
    assert mean[0] is model[0] and mean[2] is model[2] and mean.prompts["hỏi"] == "Cô giáo: "
    assert isinstance(mean[1], Pooling) and not mean[1].include_prompt
    pooling.attention_context_vector.data.zero_()  # equal weights are a mean
    for prompt_name in (None, "hỏi"):
        expected = model.encode(SENTENCES, prompt_name=prompt_name)
        np.testing.assert_allclose(mean.encode(SENTENCES, prompt_name=prompt_name), expected, atol=1e-5)
    model.default_prompt_name, model.truncate_dim, model.similarity_fn_name = "hỏi", 4, "dot"
    mean = repooled(model, "mean")
    assert mean.similarity_fn_name == "dot"
    np.testing.assert_allclose(mean.encode(SENTENCES), model.encode(SENTENCES), atol=1e-5)
    last = repooled(mean, "lasttoken").encode(SENTENCES)
    assert np.abs(last - model.encode(SENTENCES)).max() > 1e-3

    wide = SentenceTransformer(modules=[model[0], AttentionPooling(32, num_heads=2)], device="cpu")
    with pytest.raises(ValueError, match="the head takes 64 numbers"):
        repooled(wide, "mean")
    with pytest.raises(ValueError, match="neither"):
        repooled(SentenceTransformer(modules=[BoW(vocab=["a"])], device="cpu"), "mean")


def test_a_document_exactly_at_the_border_is_outside():
    """A margin of 0 is a tie with the k-th best, and ties count against the document."""
    assert find_flips(torch.tensor([0.2]), torch.tensor([0.0])).only_a == [0]
    assert find_flips(torch.tensor([0.0]), torch.tensor([0.2])).only_b == [0]
