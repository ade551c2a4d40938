"""Re-scoring by patches against loops, and the vectors of patches against `query_map`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi import build_vipolyqwen
from st_vi.inspection import rescoring
from st_vi.inspection.query_maps import query_map
from st_vi.inspection.rescoring import RescoredRetrievalEvaluator, patch_vectors, pooled_by_query
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

SIZES = [(56, 56), (84, 56), (56, 84), (84, 84), (56, 112)]
TEXTS = ["hình tròn", "ngôi sao", "hình vuông", "mưa", "nắng"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    base = str(save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl")))
    model = build_vipolyqwen(base, embedding_dimension=16, min_pixels=4 * 28 * 28, max_pixels=64 * 28 * 28).cpu()
    model[1].attention_context_vector.data.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


def test_a_batch_has_pictures(model, pictures):
    with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1, got -1"):
        patch_vectors(model, pictures, batch_size=-1)


def test_columns_in_other_forms(model, pictures):
    vectors = patch_vectors(model, iter(pictures))
    assert all(map(torch.equal, vectors, patch_vectors(model, pictures)))
    evaluator = RescoredRetrievalEvaluator(TEXTS, pictures)
    assert RescoredRetrievalEvaluator(iter(TEXTS), iter(pictures))(model) == evaluator(model)
    with pytest.raises(ValueError, match="Row 1 of texts: expected an input of the model, got None"):
        RescoredRetrievalEvaluator([TEXTS[0], None], pictures[:2])


def test_vectors_of_patches_are_those_of_query_map(model, pictures):
    query = model.encode(TEXTS[0], convert_to_tensor=True)
    vectors = patch_vectors(model, pictures, batch_size=2)
    assert [len(of_picture) for of_picture in vectors] == [w * h // 28**2 for w, h in SIZES]
    for picture, of_picture in zip(pictures, vectors, strict=True):
        expected = query_map(model, picture, query).similarity.flatten()
        torch.testing.assert_close(torch.cosine_similarity(of_picture, query, dim=1), expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(of_picture.norm(dim=1), torch.ones(len(of_picture)))
    with_text = patch_vectors(model, [{"image": [pictures[0], pictures[1]], "text": "Có gì?"}])
    assert len(with_text[0]) == len(vectors[0]) + len(vectors[1])


@pytest.mark.parametrize("temperature", [None, 0.3])
def test_pooling_equals_the_naive_loop(temperature):
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    patches = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    patches = (patches / patches.norm(dim=1, keepdim=True)).requires_grad_()
    expected = []
    for query in queries:
        powers = [((query / query.norm()) @ patch / (temperature or 1 / math.sqrt(4))).exp() for patch in patches]
        expected.append(sum(power * patch for power, patch in zip(powers, patches, strict=True)) / sum(powers))
    expected, actual = torch.stack(expected), pooled_by_query(queries, patches, temperature)
    torch.testing.assert_close(actual, expected)
    weights = torch.randn(3, 4, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(
        *(torch.autograd.grad((value * weights).sum(), [queries, patches]) for value in (actual, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


def test_equals_attention_over_layer_normed_vectors():
    """As in the paper's code: softmax(LN(q) LN(K)ᵀ/√d), for vectors of mean 0."""
    generator = torch.Generator().manual_seed(1)
    queries, keys = (torch.randn(count, 8, generator=generator, dtype=torch.float64) for count in (2, 6))
    queries, keys = (side - side.mean(dim=1, keepdim=True) for side in (queries, keys))
    normed = [torch.nn.functional.layer_norm(side, (8,), eps=0.0) for side in (queries, keys)]
    weights = (normed[0] @ normed[1].T / math.sqrt(8)).softmax(dim=1)
    unit = torch.nn.functional.normalize(keys, dim=1)
    torch.testing.assert_close(pooled_by_query(queries, unit), weights @ unit)


def naive_ranks(single, again, right, top_k):
    """For each query: order by hand, then the place of the best right candidate, behind all that tie with it."""
    found = []
    for query in range(len(single)):
        candidates = range(len(single[query]))
        first = sorted(candidates, key=lambda c: -single[query][c])[:top_k]
        key = {c: (1, again[query][c]) if c in first else (0, single[query][c]) for c in candidates}
        best = max(key[c] for c in candidates if right[query][c])
        found.append(1 + sum(key[c] >= best for c in candidates if not right[query][c]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("top_k", "weight"), [(1, 1.0), (2, 0.5), (3, 0.5), (9, 1.0), (3, 0.0)])
def test_ranks_equal_those_by_hand(model, pictures, top_k, weight):
    """With a text that belongs to two images, and an image twice."""
    texts, shown = [*TEXTS, TEXTS[0], TEXTS[1]], [*pictures, pictures[3], pictures[1].copy()]
    evaluator = RescoredRetrievalEvaluator(texts, shown, top_k=top_k, weight=weight, temperature=0.05, batch_size=3)
    figures = evaluator(model)
    t, p = model.encode(TEXTS), model.encode(pictures)
    single = t @ p.T
    again = np.empty_like(single)
    for row, query in enumerate(t):
        for column, patches in enumerate(patch_vectors(model, pictures)):
            powers = np.exp(patches.numpy() @ query / 0.05)
            pooled = (powers[:, None] * patches.numpy()).sum(axis=0)
            again[row, column] = query @ pooled / np.linalg.norm(pooled)
    mixed = (1 - weight) * single + weight * again
    right = np.eye(5, dtype=bool)
    right[0, 3] = True
    assert evaluator.ranks["text_to_image"].tolist() == naive_ranks(single, mixed, right, top_k)
    assert evaluator.ranks["image_to_text"].tolist() == naive_ranks(single.T, mixed.T, right.T, top_k)
    assert evaluator.ranks["single_text_to_image"].tolist() == naive_ranks(single, single, right, 5)
    for direction in ("text_to_image", "image_to_text"):
        ranks = np.array(evaluator.ranks[direction])
        assert figures[f"{direction}_mrr"] == pytest.approx((1 / ranks).mean())
        for k in (1, 5, 10):
            assert figures[f"{direction}_recall@{k}"] == pytest.approx((ranks <= k).mean())
        if weight == 0:
            assert evaluator.ranks[direction].equal(evaluator.ranks[f"single_{direction}"])
    both = figures["text_to_image_recall@1"], figures["image_to_text_recall@1"]
    assert figures[evaluator.primary_metric] == pytest.approx(np.mean(both))


def test_what_is_not_scored_again_stays_behind(model, pictures, monkeypatch):
    """Even behind the worst score there is."""
    monkeypatch.setattr(rescoring, "pooled_by_query", lambda queries, patches, temperature: -queries)
    evaluator = RescoredRetrievalEvaluator(TEXTS, pictures, top_k=1, weight=1.0)
    evaluator(model)
    for direction in ("text_to_image", "image_to_text"):
        assert evaluator.ranks[direction].equal(evaluator.ranks[f"single_{direction}"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"top_k": 0}, "top_k must be a whole number of at least 1, got 0"),
        ({"weight": 1.5}, "weight must lie between 0 and 1, got 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"texts": []}, "texts and pictures need one length above 0, got 0 and 5"),
    ],
)
def test_settings_that_make_no_sense(pictures, settings, message):
    with pytest.raises(ValueError, match=message):
        RescoredRetrievalEvaluator(**{"texts": TEXTS, "pictures": pictures} | settings)


def test_inputs_and_models_that_have_no_patches(model):
    with pytest.raises(ValueError, match="input 1 has no image"):
        patch_vectors(model, [Image.new("RGB", (56, 56)), "chữ"])
    with pytest.raises(ValueError, match="temperature must be above 0"):
        pooled_by_query(torch.ones(1, 2), torch.eye(2), 0.0)
    with pytest.raises(ValueError, match="begins with BoW and reads no images"):
        patch_vectors(SentenceTransformer(modules=[BoW(["a"])], device="cpu"), ["a"])
