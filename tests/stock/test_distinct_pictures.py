"""Repeated images: computed once, with the values and gradients of computing them all."""

import copy
import pickle

import pytest
import torch
from PIL import Image

from st_vi import build_vipolyqwen
from st_vi.stock.vision import distinct
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


def picture(seed, size=(56, 84)):
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


RED, BLUE, TALL = picture(1), picture(2), picture(3, (28, 112))
INPUTS = [
    {"text": "Ảnh này có gì?", "image": RED},
    {"text": "Trời nắng hay mưa?", "image": [BLUE, RED]},
    "Không có ảnh.",
    TALL,
    {"text": "Một câu hỏi khác về ảnh.", "image": RED},
    BLUE,
]


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    return build_vipolyqwen(save_tiny_qwen2_vl(tmp_path), embedding_dimension=24, max_pixels=112 * 112)


def plain(model):
    """The same model as stock computes it."""
    without = copy.deepcopy(model)
    assert without[0].model.visual.forward is without[0].distinct_pictures is not model[0].distinct_pictures
    del without[0].model.visual.forward
    return without


def patches_seen(model, features):
    seen = []
    hook = model[0].model.visual.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    vectors = model(features)["sentence_embedding"]
    hook.remove()
    return vectors, sum(seen)


def test_values_gradients_and_work(model):
    without = plain(model)
    (ours, fewer), (theirs, all_patches) = (patches_seen(m, m.preprocess(INPUTS)) for m in (model, without))
    assert torch.allclose(ours, theirs, atol=1e-5)
    red, blue, tall = (len(model.preprocess([image])["pixel_values"]) for image in (RED, BLUE, TALL))
    assert (fewer, all_patches) == (red + blue + tall, 3 * red + 2 * blue + tall)

    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(0))
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for (name, one), other in zip(model.named_parameters(), without.parameters(), strict=True):
        scale = max(1.0, float(other.grad.abs().max()))
        assert torch.allclose(one.grad, other.grad, atol=1e-5 * scale), name


def test_the_switch(model):
    model[0].distinct_pictures.enabled = False
    _, patches = patches_seen(model, model.preprocess([RED, RED]))
    assert patches == 2 * len(model.preprocess([RED])["pixel_values"])


def test_after_a_batch_with_copies_one_without_is_right(model):
    model.encode(INPUTS)
    assert torch.allclose(*(torch.tensor(m.encode([RED, BLUE])) for m in (model, plain(model))), atol=1e-6)


def test_the_model_still_travels_to_other_processes(model):
    travelled = pickle.loads(pickle.dumps(model))
    assert torch.equal(torch.tensor(travelled.encode(INPUTS)), torch.tensor(model.encode(INPUTS)))


def test_equal_patches_in_another_shape_are_another_picture():
    patches = torch.ones(4, 6)
    assert distinct([patches, patches], [[1, 1, 4], [1, 4, 1]]) == ([0, 1], [0, 1])
    assert distinct([patches, patches], [[1, 2, 2], [1, 2, 2]]) == ([0], [0, 0])


def test_equal_sums_are_not_equal_pictures():
    assert distinct([torch.tensor([[1.0, 2.0]]), torch.tensor([[2.0, 1.0]])]) == ([0, 1], [0, 1])
