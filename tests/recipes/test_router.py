"""``encode(…, prompt_name="auto")`` on a tiny viPolyQwen, against each input encoded with its own prefix by hand."""

from __future__ import annotations

import copy
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from PIL import Image
from sentence_transformers import SentenceTransformer

from st_vi import build_vipolyqwen, load
from st_vi.encoding import encode_by_tokens
from st_vi.identity import model_identity
from st_vi.inspection.flips import repooled
from st_vi.modules import TaskRouter
from st_vi.recipes import train_router
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

RED, BLUE = (Image.new("RGB", (56, 56), colour) for colour in ("red", "blue"))
ROWS = [
    {"anchor": "Trời mưa to nên đường phố ngập nước.", "task": "text_pair"},
    {"anchor": "Con mèo đen nằm ngủ trên mái nhà.", "task": "text_pair"},
    {"anchor": "Màu gì?", "anchor_image": RED, "task": "vqa_single"},
    {"anchor": "Có mấy hình?", "anchor_image": BLUE, "task": "vqa_single"},
    {"anchor": "", "anchor_image": RED, "task": "ocr"},
    {"anchor": "", "anchor_image": BLUE, "task": "ocr"},
]
INPUTS = [
    ROWS[0]["anchor"],
    RED,
    {"text": "Màu gì?", "image": RED},
    BLUE,
    {"text": "Có mấy hình?", "image": [BLUE]},
    [{"role": "user", "content": "Con mèo đen nằm ngủ trên mái nhà."}],
]
TRUE = ["text_pair", "ocr", "vqa_single", "ocr", "vqa_single", "text_pair"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """With a router that knows `INPUTS`."""
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    model = build_vipolyqwen(path, embedding_dimension=24, max_pixels=56 * 56).to("cpu")
    train_router(model, ROWS * 10)
    return model


@pytest.fixture
def router(model):
    """Its router, whose threshold a test may change."""
    before = model[-1].threshold
    yield model[-1]
    model[-1].threshold = before


def by_hand(model, tasks):
    prompts = [model.prompts[task] if task else "" for task in tasks]
    return np.stack([model.encode(item, prompt=prompt) for item, prompt in zip(INPUTS, prompts, strict=True)])


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [2, 32])
def test_each_input_gets_its_own_prefix_and_the_order_stays(model, router, batch_size):
    assert [choice.task for choice in router.choose(model, INPUTS)] == TRUE
    vectors = model.encode(INPUTS, prompt_name="auto", batch_size=batch_size)
    np.testing.assert_allclose(vectors, by_hand(model, TRUE), atol=1e-6)
    assert np.abs(vectors - model.encode(INPUTS)).max(axis=1).min() > 1e-3


def test_below_the_threshold_there_is_no_prefix(model, router):
    probabilities = [max(choice.probabilities.values()) for choice in router.choose(model, INPUTS)]
    router.threshold = float(np.median(probabilities))
    chosen = [choice.task for choice in router.choose(model, INPUTS)]
    assert Counter(task is None for task in chosen) == {True: 3, False: 3}
    np.testing.assert_allclose(model.encode(INPUTS, prompt_name="auto"), by_hand(model, chosen), atol=1e-6)
    router.threshold = 1.0
    np.testing.assert_allclose(model.encode(INPUTS, prompt_name="auto"), model.encode(INPUTS), atol=1e-6)


def test_probabilities_are_those_of_the_vectors_without_a_prefix(model, router):
    scores = model.encode(INPUTS) @ router.weight.numpy().T + router.bias.numpy()
    expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = [[choice.probabilities[task] for task in router.tasks] for choice in router.choose(model, INPUTS)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert router.choose(model, []) == []


def test_auto_everywhere_that_prompts_are(model, tmp_path):
    expected = by_hand(model, TRUE)
    np.testing.assert_allclose(encode_by_tokens(model, INPUTS, prompt_name="auto"), expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(INPUTS[1], prompt_name="auto"), expected[1], atol=1e-6)
    with model.truncate_embeddings(8):
        np.testing.assert_allclose(model.encode(INPUTS, prompt_name="auto"), expected[:, :8], atol=1e-6)
    model.save_pretrained(str(tmp_path))
    loaded, copied = load(tmp_path, device="cpu"), copy.deepcopy(model)
    assert {path.suffix for path in (tmp_path / "4_TaskRouter").iterdir()} == {".json", ".safetensors"}
    for other in (loaded, copied):
        np.testing.assert_allclose(other.encode(INPUTS, prompt_name="auto"), expected, atol=1e-6)
    copied[-1].weight.zero_()  # the copy asks its own router
    with pytest.raises(ValueError, match="the router is not trained"):
        copied.encode(INPUTS, prompt_name="auto")
    np.testing.assert_allclose(model.encode(INPUTS, prompt_name="auto"), expected, atol=1e-6)


def test_vectors_that_are_kept_belong_to_the_prompts_it_chooses_among(model):
    changed = copy.copy(model)
    assert model_identity(changed) == model_identity(model)
    changed.prompts = model.prompts | {"ocr": "Đọc: "}
    assert model_identity(changed) != model_identity(model)


def test_a_prompt_that_is_gone_is_named(model):
    changed = copy.deepcopy(model)
    del changed.prompts["ocr"]
    with pytest.raises(ValueError, match=r"the model has no prompt for \['ocr'\]; its prompts are"):
        changed.encode(INPUTS, prompt_name="auto")


def test_a_new_router_takes_the_place_of_the_old_one(model):
    other = copy.deepcopy(model)
    rows = DatasetDict(one=Dataset.from_list(ROWS[:2]), two=Dataset.from_list(ROWS[2:4]))
    router = train_router(other, rows, threshold=0.0)
    assert [type(module).__name__ for module in other].count("TaskRouter") == 1 and other[-1] is router
    assert router.tasks == ["text_pair", "vqa_single"]
    np.testing.assert_allclose(other.encode(INPUTS[0], prompt_name="auto"), by_hand(model, TRUE)[0], atol=1e-6)


def test_a_model_that_shares_the_modules_leaves_the_choice_as_it_is(model):
    mean = repooled(model, "mean")
    assert [type(module).__name__ for module in mean][1::3] == ["Pooling", "TaskRouter"]
    np.testing.assert_allclose(model.encode(INPUTS, prompt_name="auto"), by_hand(model, TRUE), atol=1e-6)
    np.testing.assert_allclose(mean.encode(INPUTS, prompt_name="auto"), by_hand(mean, TRUE), atol=1e-6)


def test_what_cannot_be_is_one_plain_line(model, tiny_model):
    with pytest.raises(ValueError, match=r"these rows are of \['ocr'\]"):
        train_router(model, ROWS[4:])
    with pytest.raises(ValueError, match="column 'task', row 1: expected the name of a task, got None"):
        train_router(model, [ROWS[0], {"anchor": "Trời mưa.", "task": None}])
    with pytest.raises(ValueError, match="missing column 'task'"):
        train_router(model, [{"anchor": "Trời mưa."}])
    with pytest.raises(ValueError, match=r"the model has no prompt for \['dịch'\]; its prompts are"):
        train_router(model, [*ROWS, {"anchor": "Trời mưa.", "task": "dịch"}])
    tiny_model.prompts |= {"ocr": "ocr: ", "text_pair": "pair: ", "vqa_single": "vqa: "}
    with pytest.raises(ValueError, match="needs a Qwen2VLTransformer, the model has a Transformer"):
        train_router(tiny_model, ROWS)
    with pytest.raises(ValueError, match="the router is for vectors of 24, these are of 32"):
        model[-1].choose(tiny_model, ["Trời mưa."])
    with pytest.raises(ValueError, match="the router is not trained"):
        TaskRouter(["ocr", "instr"], 24).choose(model, ["Trời mưa."])
    with pytest.raises(ValueError, match=r"input 0 of the batch, 'anh/meo.png': cannot read the image"):
        model.encode(["anh/meo.png"], prompt_name="auto")
    without = SentenceTransformer(modules=list(copy.deepcopy(model))[:-1], prompts={"auto": "<auto>"}, device="cpu")
    without[0].choose_prompts = None
    with pytest.raises(ValueError, match="'<auto>' is chosen by a TaskRouter, which this model lacks"):
        without.encode(["Trời mưa."], prompt_name="auto")
