"""Batches by tokens: the same vectors as one by one, within the budget, in the order of the inputs."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import quantize_embeddings

from st_vi import build_vipolyqwen
from st_vi.encoding import encode_by_tokens
from st_vi.encoding.batches import plan_batches, token_counts
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

TEXTS = [" ".join(SENTENCES[: 1 + i % 5]) if i % 7 == 0 else SENTENCES[i % 8][: 3 + i] for i in range(40)]


@pytest.fixture(scope="module")
def vipolyqwen(tmp_path_factory) -> SentenceTransformer:
    base = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny-qwen2-vl"))
    return build_vipolyqwen(str(base), embedding_dimension=16, max_pixels=224 * 224)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory) -> list:
    """Texts, images of several sizes, as objects and as files, and both."""
    folder = tmp_path_factory.mktemp("pictures")
    inputs: list = [TEXTS[0], *TEXTS[3:8]]
    for number, size in enumerate([(56, 56), (300, 100), (90, 400), (224, 224)]):
        path = folder / f"{number}.png"
        picture = Image.effect_noise(size, 60 + number).convert("RGB")
        picture.save(path)
        inputs += [picture, {"image": str(path), "text": TEXTS[number]}, {"text": None, "image": picture}, str(path)]
    inputs.append({"image": [inputs[6], inputs[10]], "text": "Hai bức ảnh."})
    inputs.append(np.asarray(inputs[6]))  # of no kind that can be counted without preprocessing
    return inputs


def one_by_one(model, inputs, **kwargs):
    return np.stack([model.encode(item, **kwargs) for item in inputs])


def padded_tokens(model, call):
    """The shapes of all batches that the model is given meanwhile."""
    shapes = []
    handle = model[0].register_forward_pre_hook(lambda _, args: shapes.append(tuple(args[0]["input_ids"].shape)))
    call()
    handle.remove()
    return shapes


def test_texts_equal_one_by_one_and_keep_the_budget(tiny_model):
    result = encode_by_tokens(tiny_model, TEXTS, max_tokens=100)
    assert np.abs(result - one_by_one(tiny_model, TEXTS)).max() < 1e-5
    shapes = padded_tokens(tiny_model, lambda: encode_by_tokens(tiny_model, TEXTS, max_tokens=100))
    assert sum(rows for rows, _ in shapes) == len(TEXTS) and len(shapes) > 3
    assert all(rows * width <= 100 or rows == 1 for rows, width in shapes)


@pytest.mark.parametrize("prompt_name", [None, "vqa_single"])
def test_mixed_inputs_equal_one_by_one_and_keep_the_budget(vipolyqwen, mixed, prompt_name):
    expected = one_by_one(vipolyqwen, mixed, prompt_name=prompt_name)
    got = []
    shapes = padded_tokens(
        vipolyqwen, lambda: got.append(encode_by_tokens(vipolyqwen, mixed, max_tokens=120, prompt_name=prompt_name))
    )
    assert np.abs(got[0] - expected).max() < 1e-5
    assert sum(rows for rows, _ in shapes) == len(mixed) and len(shapes) > 3
    assert all(rows * width <= 120 or rows == 1 for rows, width in shapes)


@pytest.mark.parametrize("prompt", [None, "<ocr> "])
def test_counts_are_those_of_preprocess(vipolyqwen, mixed, prompt):
    exact = [int(vipolyqwen.preprocess([item], prompt=prompt)["attention_mask"].sum()) for item in mixed]
    counts = token_counts(vipolyqwen, mixed, prompt)
    textless = [not isinstance(item, str) and not (isinstance(item, dict) and item["text"]) for item in mixed]
    for item, count, true, loose in zip(mixed, counts, exact, textless, strict=True):
        if loose or str(item).endswith(".png"):
            assert true <= count <= true + 2, item
        else:
            assert count == true, item


def test_picture_is_not_decoded_to_be_counted(vipolyqwen, tmp_path):
    path = tmp_path / "cut.png"
    Image.effect_noise((300, 100), 50).convert("RGB").save(path)
    whole = token_counts(vipolyqwen, [str(path)])
    path.write_bytes(path.read_bytes()[:200])
    assert token_counts(vipolyqwen, [str(path)]) == whole
    with pytest.raises(ValueError, match=r"cut\.png"):
        encode_by_tokens(vipolyqwen, ["Chào.", str(path)])


def test_no_batch_is_more_than_half_padding():
    counts = [3, 100, 4, 3, 60, 3, 90, 5] * 10
    batches = plan_batches(counts, 10_000)
    assert sorted(i for batch in batches for i in batch) == list(range(80))
    for batch in batches:
        lengths = [counts[i] for i in batch]
        assert 2 * min(lengths) >= max(lengths)


def test_precision_takes_its_ranges_from_all(tiny_model):
    expected = encode_by_tokens(tiny_model, TEXTS)
    for precision in ("int8", "binary"):
        got = encode_by_tokens(tiny_model, TEXTS, max_tokens=60, precision=precision)
        stock = tiny_model.encode(TEXTS, precision=precision)
        assert got.dtype == stock.dtype == np.int8 and got.shape == stock.shape
        # Numbers at the edge of a step may fall on either side.
        assert np.abs(got.astype(int) - stock).max() <= (1 if precision == "int8" else 0)
    assert np.array_equal(
        quantize_embeddings(expected, "binary"), encode_by_tokens(tiny_model, TEXTS, precision="binary")
    )


def test_bad_arguments(tiny_model, monkeypatch):
    with pytest.raises(ValueError, match="max_tokens must be a whole number of at least 1, got 0"):
        encode_by_tokens(tiny_model, TEXTS, max_tokens=0)
    with pytest.raises(ValueError, match="no prompt 'ocr'"):
        encode_by_tokens(tiny_model, TEXTS, prompt_name="ocr")
    monkeypatch.setattr(tiny_model, "encode", None)  # it is known before anything is encoded
    with pytest.raises(ValueError, match=r"precision must be one of .*'ubinary'.*, got 'float16'"):
        encode_by_tokens(tiny_model, TEXTS, precision="float16")
    for nothing in ([], np.array([])):
        assert encode_by_tokens(tiny_model, nothing).shape == (0, 32)


def test_one_input_gives_one_vector(vipolyqwen, mixed):
    picture, file = mixed[6], io.BytesIO()
    picture.save(file, "PNG")
    held = [picture, np.asarray(picture), file.getvalue(), memoryview(file.getvalue()), file]
    for one in ("Trời mưa", {"text": "Trời mưa"}, {"text": "Trời mưa", "image": picture}, *held):
        got, expected = encode_by_tokens(vipolyqwen, one), vipolyqwen.encode(one)
        assert got.shape == expected.shape == (16,) and np.abs(got - expected).max() < 1e-5
    conversation = [{"role": "user", "content": [{"type": "text", "text": "Trời mưa"}]}]
    assert np.abs(encode_by_tokens(vipolyqwen, conversation) - vipolyqwen.encode(conversation)).max() < 1e-5
    assert token_counts(vipolyqwen, "Trời mưa") == token_counts(vipolyqwen, ["Trời mưa"])


CONTAINERS = {
    "tuple": tuple,
    "generator": iter,
    "Series": lambda texts: pd.Series(texts, index=range(7, 7 + len(texts))),
    "texts": np.array,
    "objects": lambda texts: np.array(texts, dtype=object),
    "strings of any length": lambda texts: np.array(texts, dtype=getattr(np.dtypes, "StringDType", object)()),
    "column": lambda texts: Dataset.from_dict({"text": texts})["text"],
    "Arrow": pa.array,
    "chunked Arrow": lambda texts: pa.chunked_array([texts[:3], texts[3:]]),
    "keys": lambda texts: dict.fromkeys(texts).keys(),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_is_a_list_of_its_values(tiny_model, name):
    texts = list(dict.fromkeys(TEXTS))[:9]
    expected = encode_by_tokens(tiny_model, texts)
    assert np.array_equal(encode_by_tokens(tiny_model, CONTAINERS[name](texts)), expected)
    assert token_counts(tiny_model, CONTAINERS[name](texts)) == token_counts(tiny_model, texts)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (pd.DataFrame({"text": ["a", "b"]}), r"a DataFrame with the columns \['text'\]: pass one of its columns"),
        (Dataset.from_dict({"body": ["a", "b"]}), r"a Dataset with the columns \['body'\]"),
        (pa.table({"text": ["a"]}), r"a Table with the columns \['text'\]"),
        ({"text": ["a", "b"]}, r"a dict with the columns \['text'\]: pass one of its columns"),
        ({"image": ["a.png"], "text": pd.Series(["a"])}, r"a dict with the columns \['image', 'text'\]"),
        ({"a", "b"}, "a set has no order"),
        (None, "nothing to encode in None"),
        (3, "nothing to encode in 3"),
        (np.array([["a", "b"]]), r"got an array of the shape \(1, 2\)"),
        (object(), "expected texts, images or both"),
        (pd.Series(["a", None]), "input 1, "),
        (["a", ["b", 3]], r"input 1, \['b', 3\]"),
    ],
)
def test_what_is_no_list_of_inputs_is_an_error(tiny_model, inputs, message):
    for call in (encode_by_tokens, token_counts):
        with pytest.raises(ValueError, match=message):
            call(tiny_model, inputs)


def test_unit_length(tiny_model):
    del tiny_model[3]
    plain, unit = encode_by_tokens(tiny_model, TEXTS), encode_by_tokens(tiny_model, TEXTS, normalize=True)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.abs(lengths - 1).max() > 0.1 and np.abs(unit - plain / lengths).max() < 1e-6
    bits = encode_by_tokens(tiny_model, TEXTS, normalize=True, precision="binary")
    assert np.array_equal(bits, encode_by_tokens(tiny_model, TEXTS, precision="binary"))


def test_the_one_bad_input_of_a_batch_is_named(vipolyqwen, tmp_path):
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"input 3, .*b\.png"):
        encode_by_tokens(vipolyqwen, [*TEXTS[:3], {"image": str(tmp_path / "b.png")}, *TEXTS[3:6]])


def test_running_out_of_memory_is_nobodys_fault(tiny_model, monkeypatch):
    calls = []

    def encode(texts, **kwargs):
        calls.append(len(texts))
        raise MemoryError

    monkeypatch.setattr(tiny_model, "encode", encode)
    with pytest.raises(MemoryError):
        encode_by_tokens(tiny_model, TEXTS[:4])
    assert len(calls) == 1  # not row by row


def test_a_vector_that_is_not_finite_is_an_error(tiny_model):
    with torch.no_grad():
        tiny_model[2].layers[0].bias[3] = float("nan")
    with pytest.raises(ValueError, match=r"input \d+, .*not finite"):
        encode_by_tokens(tiny_model, TEXTS)
