"""Any number of threads that share a model get what one gets."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from st_vi import build_vipolyqwen
from st_vi.inspection.attention import pool_texts
from st_vi.modules import AttentionPooling
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

THREADS, BATCHES = 4, 15


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    path = save_tiny_qwen2_vl(tmp_path_factory.mktemp("tiny"))
    return build_vipolyqwen(path, embedding_dimension=24, max_pixels=112 * 112)


PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 255, (56 + 28 * (n % 3), 84, 3), dtype=np.uint8))
    for n in range(5)
]


def batch(seed):
    """Few images, most of them more than once, and texts."""
    random = np.random.default_rng(seed)
    inputs = []
    for _ in range(random.integers(1, 7)):
        picture, text = PICTURES[random.integers(len(PICTURES))], SENTENCES[random.integers(len(SENTENCES))]
        inputs.append((picture, {"image": picture, "text": text}, text)[random.integers(3)])
    return inputs


def together(*tasks):
    """Run each in a thread, all at the same moment, and return what they return."""
    barrier, results, errors = threading.Barrier(len(tasks)), [None] * len(tasks), []

    def run(number):
        barrier.wait()
        try:
            results[number] = tasks[number]()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(tasks))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    return results


def encode_all(model, batches):
    return [model.encode(inputs, batch_size=8) for inputs in batches]


def gradients(model, batches):
    """Of several batches, added up, apart from the model's own ``grad``."""
    total = {}
    for inputs in batches:
        vectors = model(model.preprocess(inputs))["sentence_embedding"]
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        for number, grad in enumerate(
            torch.autograd.grad(vectors.square().sum(dim=0).var(), weights, allow_unused=True)
        ):
            if grad is not None:
                total[number] = total.get(number, 0) + grad
    return total


def assert_all_close(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_encode(model):
    work = [[batch(1000 * thread + number) for number in range(BATCHES)] for thread in range(THREADS)]
    alone = [encode_all(model, batches) for batches in work]
    found = together(*(lambda batches=batches: encode_all(model, batches) for batches in work))
    for one, other in zip(found, alone, strict=True):
        assert_all_close(one, other)


@pytest.mark.slow
def test_encode_beside_training(model):
    batches, rows = (
        [batch(number) for number in range(BATCHES)],
        [[*batch(n), PICTURES[0], PICTURES[0]] for n in range(8)],
    )
    vectors, grads = encode_all(model, batches), gradients(model, rows)
    found, found_grads = together(lambda: encode_all(model, batches), lambda: gradients(model, rows))
    assert_all_close(found, vectors)
    assert grads.keys() == found_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(found_grads[name], grad, atol=1e-5, rtol=1e-3)


LONG = [" ".join(SENTENCES[n:] + SENTENCES[:n]) for n in range(4)]  # longer than any limit here


def test_encode_beside_a_look_at_the_weights(tiny_base):
    """Looking asks the tokenizer for all tokens of a text, encoding for as many as the model reads."""
    transformer = Transformer(str(tiny_base), max_seq_length=16)
    model = SentenceTransformer(modules=[transformer, AttentionPooling(32)], device="cpu")
    vectors = model.encode(LONG)
    settings = transformer.tokenizer.backend_tokenizer.truncation, transformer.tokenizer.backend_tokenizer.padding
    assert all(view.read.truncated for view in pool_texts(model, LONG))
    after = transformer.tokenizer.backend_tokenizer.truncation, transformer.tokenizer.backend_tokenizer.padding
    assert settings == after
    found, _ = together(
        lambda: [model.encode(LONG) for _ in range(BATCHES)], lambda: [pool_texts(model, LONG) for _ in range(BATCHES)]
    )
    assert_all_close(found, [vectors] * BATCHES)


@pytest.mark.slow
@pytest.mark.parametrize("template", ["plain", "chat"])
def test_long_texts_leave_the_tokenizer_as_it_is(tmp_path, template):
    """Stock renders a template twice to learn its end, without a limit, the first time that a text is cut."""
    path = save_tiny_qwen2_vl(tmp_path)
    model = build_vipolyqwen(path, embedding_dimension=24, template=template)
    model.max_seq_length = 40
    expected = model.encode(LONG)
    fresh = build_vipolyqwen(path, embedding_dimension=24, template=template)
    fresh.load_state_dict(model.state_dict())
    fresh.max_seq_length = 40
    fresh.encode(SENTENCES[0])
    backend, calls = fresh.tokenizer.backend_tokenizer, []
    before = backend.truncation, backend.padding
    tokenizer = type(fresh.tokenizer)
    original = tokenizer.set_truncation_and_padding

    def record(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self is fresh.tokenizer:
            calls.append((backend.truncation, backend.padding))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "set_truncation_and_padding", record)
        found = fresh.encode(LONG)
    assert set(map(str, calls)) == {str(before)}
    np.testing.assert_allclose(found, expected, atol=1e-5)
