"""Masked patches against images painted by Pillow and a softmax written out; maps of a query against these."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cosine_similarity

from st_vi import build_vipolyqwen
from st_vi.inspection.patch_masks import mask_patches
from st_vi.inspection.patches import view_patches
from st_vi.inspection.query_maps import query_map
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Shared by tests that leave it as it is."""
    tiny = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    torch.manual_seed(0)
    model = build_vipolyqwen(tiny, embedding_dimension=32, max_pixels=64 * 28 * 28).cpu()
    model[1].attention_context_vector.data.normal_(std=0.3)
    return model


@pytest.fixture(scope="module")
def query(model):
    return model.encode("Con mèo đen nằm ngủ trên mái nhà.", convert_to_tensor=True)


def spots(width, height, seed=0):
    """Squares of 14 pixels; the lower half is the upper one's negative, so that the mean is 127 and not rounded."""
    half = np.random.default_rng(seed).integers(0, 255, (height // 28, width // 14, 3), dtype=np.uint8)
    return Image.fromarray(np.concatenate([half, 254 - half])).resize((width, height), Image.Resampling.NEAREST)


def painted(picture, patches):
    """The same with Pillow; `picture` has whole patches, so that nothing is resized."""
    copy = picture.copy()
    for row, column in patches:
        copy.paste((127, 127, 127), (28 * column, 28 * row, 28 * (column + 1), 28 * (row + 1)))
    return copy


PATCHES = [(0, 0), (1, 3), (2, 1)]
SQUARE, WIDE, TALL = spots(112, 112), spots(168, 84, 1), spots(56, 140, 2)


@pytest.mark.parametrize(("pictures", "number"), [([WIDE], 0), ([SQUARE], 0), ([TALL, WIDE, SQUARE], 1)])
@pytest.mark.parametrize("text", ["", "Hôm nay trời nắng đẹp."])
def test_painted_is_the_painted_picture_encoded(model, query, pictures, number, text):
    effect = mask_patches(model, pictures, PATCHES, query, text, number=number, prompt_name="ocr")
    others = list(pictures)
    others[number] = painted(pictures[number], PATCHES)
    items = [{"image": each, "text": text} if text else {"image": each} for each in (pictures, others)]
    before, after = model.encode(items, prompt_name="ocr", convert_to_tensor=True)
    assert effect.similarity == pytest.approx(float(before @ query), abs=1e-5)
    assert effect.painted_similarity == pytest.approx(float(after @ query), abs=1e-4)
    torch.testing.assert_close(effect.painted.embedding, after, atol=1e-4, rtol=0)
    assert (before - after).abs().max() > 0.02


@torch.no_grad()
def test_unpooled_is_a_softmax_over_the_other_tokens(model, query):
    effect = mask_patches(model, WIDE, PATCHES, query, "Trời nắng.")
    features = model[0](model.preprocess([{"image": WIDE, "text": "Trời nắng."}]))
    tokens, v = features["token_embeddings"][0].double(), model[1].attention_context_vector[0].double()
    left_out = {model[0].patch_positions(features)[0][0][row, column].item() for row, column in PATCHES}
    kept = [i for i in range(len(tokens)) if i not in left_out]
    weights = {i: float(torch.exp(tokens[i] @ v)) for i in kept}
    total = sum(weights.values())
    pooled = sum(weights[i] / total * tokens[i] for i in kept)
    expected = model[2]({"sentence_embedding": pooled.float()[None]})["sentence_embedding"][0]
    expected = expected / expected.norm()
    torch.testing.assert_close(effect.unpooled.embedding, expected, atol=1e-5, rtol=0)
    assert effect.unpooled_similarity == pytest.approx(float(expected @ query), abs=1e-5)
    assert all(effect.unpooled.maps[0][patch] == 0 for patch in PATCHES)
    assert effect.unpooled.image + effect.unpooled.text + effect.unpooled.special == pytest.approx(1, abs=1e-5)


def test_random_masks_have_as_many_patches_and_follow_the_seed(model, query):
    first = mask_patches(model, SQUARE, PATCHES, query, draws=4, seed=1).random_similarities
    again = mask_patches(model, SQUARE, PATCHES, query, draws=4, seed=1).random_similarities
    other = mask_patches(model, SQUARE, PATCHES, query, draws=4, seed=2).random_similarities
    torch.testing.assert_close(first, again)
    assert first.shape == (4,) and first.unique().numel() == 4
    assert not torch.allclose(first, other)
    # With one patch there are 16 masks, and every draw must be one of them.
    of_one = [mask_patches(model, SQUARE, [(r, c)], query, draws=1) for r in range(4) for c in range(4)]
    known = torch.tensor([effect.painted_similarity for effect in of_one])
    drawn = mask_patches(model, SQUARE, [(2, 2)], query, draws=6).random_similarities
    assert ((drawn[:, None] - known).abs().min(dim=1).values < 1e-5).all()


def test_nothing_and_everything(model, query):
    nothing = mask_patches(model, SQUARE, [], query)
    for similarity in (nothing.painted_similarity, nothing.unpooled_similarity, *nothing.random_similarities):
        assert float(similarity) == pytest.approx(nothing.similarity, abs=1e-5)
    everything = mask_patches(model, SQUARE, [(r, c) for r in range(4) for c in range(4)], query)
    assert everything.random_similarities.tolist() == pytest.approx([everything.painted_similarity] * 5, abs=1e-5)
    assert everything.unpooled.image == 0 and everything.unpooled.special == pytest.approx(1)


def test_a_query_as_encode_gives_it(model, query):
    """`encode` returns an array unless it is told otherwise."""
    array = query.numpy()
    assert mask_patches(model, SQUARE, [(0, 0)], array).similarity == pytest.approx(
        mask_patches(model, SQUARE, [(0, 0)], query).similarity
    )
    assert query_map(model, SQUARE, array).fall.equal(query_map(model, SQUARE, query).fall)


def test_wrong_patches_and_pictures(model, query):
    with pytest.raises(ValueError, match=r"4 x 4 patches; \(4, 0\) is none"):
        mask_patches(model, SQUARE, [(0, 0), (4, 0)], query)
    with pytest.raises(ValueError, match="none of them"):
        mask_patches(model, SQUARE, [(-1, 0)], query)
    with pytest.raises(ValueError, match=r"the query must be one embedding of the model, \(\d+,\), got \(3,\)"):
        mask_patches(model, SQUARE, [(0, 0)], torch.ones(3))
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1, got 0"):
        mask_patches(model, SQUARE, [(0, 0)], query, draws=0)
    with pytest.raises(ValueError, match="1 is none of them"):
        mask_patches(model, SQUARE, [(0, 0)], query, number=1)


@pytest.mark.slow
@pytest.mark.parametrize(("pictures", "number"), [([WIDE], 0), ([TALL, SQUARE], 1)])
@pytest.mark.parametrize("text", ["", "Có mấy hình?"])
def test_each_patch_is_painted_alone(model, query, pictures, number, text):
    found = query_map(model, pictures, query, text, number=number, prompt_name="ocr", batch_size=3)
    whole = model.encode([{"image": pictures, **({"text": text} if text else {})}], prompt_name="ocr")[0]
    assert found.whole == pytest.approx(float(torch.as_tensor(whole) @ query.cpu()), abs=1e-5)
    for patch in [(0, 0), (1, 2), (2, 1)][: None if number == 0 else 1]:
        effect = mask_patches(model, pictures, [patch], query, text, number=number, prompt_name="ocr", draws=1)
        assert float(found.fall[patch]) == pytest.approx(effect.similarity - effect.painted_similarity, abs=1e-5)
    view = view_patches(model, pictures, text, prompt_name="ocr")
    torch.testing.assert_close(found.weights, view.maps[number])
    assert found.similarity.shape == found.fall.shape == view.maps[number].shape


def test_a_patch_alone_is_its_own_token_through_the_head(model, query):
    """One head: the pooled vector of one token is that token."""
    found = query_map(model, WIDE, query)
    features = model.preprocess([{"image": [WIDE]}])
    with torch.no_grad():
        states = model[0](dict(features))["token_embeddings"][0]
        places = model[0].patch_positions(features)[0][0]
        for patch in [(0, 0), (2, 3)]:
            pooled = {"sentence_embedding": states[places[patch]][None]}
            for module in list(model)[2:]:
                pooled = module(pooled)
            own = cosine_similarity(pooled["sentence_embedding"][0], query, dim=0)
            assert float(found.similarity[patch]) == pytest.approx(float(own), abs=1e-5)


def test_no_such_picture(model, query):
    with pytest.raises(ValueError, match="there are 1 images"):
        query_map(model, WIDE, query, number=1)
