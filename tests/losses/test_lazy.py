"""Images opened mini-batch by mini-batch, against the same batch with all images opened by the collator."""

from __future__ import annotations

import io
import pickle
import re
import threading
import weakref

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from st_vi import CachedDLELoss, CachedSupConNLILoss, DLELoss, MixedTaskCollator, SupConNLILoss, train_vipolyqwen
from st_vi.data.collator import ScoreCollator
from st_vi.inputs import lazy
from st_vi.inputs.lazy import LazyInputs, image_key
from st_vi.losses.lazy import LazyBatch, LazyPart
from tests.conftest import SENTENCES
from tests.helpers.columns import TALL, WIDE, S, assert_same, features_of, picture
from tests.helpers.one_epoch import SETTINGS

NAN = float("nan")


def as_png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Paths, bytes and images; one image under a path, as bytes and with other bytes; texts alone; two images."""
    folder = tmp_path_factory.mktemp("pictures")
    path = folder / "wide.bmp"
    WIDE.save(path)
    other, tall = picture(56, 84, 2), as_png(TALL)
    return [
        {"task": "vqa_single", "anchor": "Có mấy con mèo?", "anchor_image": str(path), "positive": "Ba con."},
        {"task": "vqa_single", "anchor": "Màu gì?", "anchor_image": str(path), "positive": "Đen."},
        {"task": "vqa_single", "anchor": "Màu gì?", "anchor_image": as_png(WIDE), "positive": "Trắng."},
        {"task": "ocr", "anchor": "Đọc.", "anchor_image": {"bytes": tall, "path": None}, "positive": S[1]},
        {"task": "ocr", "anchor": None, "anchor_image": [other, str(path)], "positive": S[2]},
        {"task": "ocr", "anchor": "Đọc.", "anchor_image": as_png(other), "positive": "", "positive_image": tall},
        {"task": "text_pair", "anchor": S[0], "positive": S[3], "score": 0.3},
        {"task": "text_pair", "anchor": S[4], "positive": "anh/meo.png", "score": 0.8},
    ]  # fmt: skip


def step(model, loss, rows, **settings):
    model.zero_grad()
    columns, labels = features_of(MixedTaskCollator(model.preprocess, **settings)(rows))
    components = loss(columns, labels)
    sum(components.values()).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [value.detach() for value in components.values()], gradients


@pytest.mark.slow
@pytest.mark.parametrize("embed_once", [True, False])
@pytest.mark.parametrize(
    "sizes", [{"mini_batch_size": 1}, {"mini_batch_size": 3}, {}, {"mini_batch_num_tokens": 24}], ids=str
)
def test_equals_the_eager_batch(tiny_multimodal, rows, sizes, embed_once):
    loss = CachedDLELoss(tiny_multimodal, embed_once=embed_once, **sizes)
    lazily = step(tiny_multimodal, loss, rows, lazy_images=True, prefix_side="both")
    assert any("visual" in name for name in lazily[1])
    assert_same(lazily, step(tiny_multimodal, loss, rows, prefix_side="both"), 1e-5)
    assert_same(lazily, step(tiny_multimodal, DLELoss(tiny_multimodal), rows, prefix_side="both"), 1e-5)


def test_an_evaluation_and_a_text_model(tiny_multimodal, tiny_model, rows):
    loss = CachedDLELoss(tiny_multimodal, mini_batch_size=2)
    with torch.no_grad():
        lazily, eager = (
            loss(*features_of(MixedTaskCollator(tiny_multimodal.preprocess, lazy_images=on)(rows)))
            for on in (True, False)
        )
    torch.testing.assert_close(lazily, eager, atol=1e-5, rtol=1e-5)
    # One that has no images and counts no tokens.
    assert_same(
        step(tiny_model, CachedDLELoss(tiny_model, mini_batch_size=2), rows[-2:], lazy_images=True),
        step(tiny_model, CachedDLELoss(tiny_model), rows[-2:]),
        5e-6,
    )
    with pytest.raises(ValueError, match=r"cannot count the tokens.*use mini_batch_size"):
        step(tiny_model, CachedDLELoss(tiny_model, mini_batch_num_tokens=20), rows[-2:], lazy_images=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 100])
def test_each_picture_is_opened_once_a_pass(tiny_multimodal, monkeypatch, size):
    """Three questions about each of four images, and every image is a positive, too."""
    stored = [as_png(picture(28 + 28 * (i % 2), 56, i)) for i in range(4)]
    rows = [
        {"task": "ocr", "anchor": f"{word} {i}", "anchor_image": stored[i], "positive": "", "positive_image": stored[i]}
        for word in ("Một", "Hai hai hai hai", "Ba")
        for i in range(4)
    ]
    opened, open_stored = [], lazy.open_stored
    monkeypatch.setattr(lazy, "open_stored", lambda value: opened.append(image_key(value)) or open_stored(value))
    step(tiny_multimodal, CachedDLELoss(tiny_multimodal, mini_batch_size=size), rows, lazy_images=True)
    assert sorted(opened) == sorted([image_key(value) for value in stored] * 2)


def test_one_mini_batch_ahead_and_no_more(tiny_multimodal, monkeypatch):
    stored = [as_png(picture(28, 28, i)) for i in range(6)]
    inputs = LazyInputs("anchor", ["Gì?"] * 6, [[value] for value in stored])
    batch = LazyBatch([inputs], tiny_multimodal, torch.device("cpu"))
    made, preprocess, threads = [], tiny_multimodal.preprocess, set()

    class Model:
        def __getitem__(self, place):
            return tiny_multimodal[place]

        def preprocess(self, inputs):
            threads.add(threading.current_thread())
            features = preprocess(inputs)
            made.append(weakref.ref(features["pixel_values"]))
            return features

    opened, read = [], lazy.open_stored

    def open_stored(value):
        image = read(value)
        opened.append(weakref.ref(image))
        return image

    monkeypatch.setattr(lazy, "open_stored", open_stored)
    batch.model = Model()
    mini_batches = LazyPart(batch, range(6)).mini_batches([(i, i + 1) for i in range(6)])
    for number, features in enumerate(mini_batches):
        assert features["input_ids"].shape[0] == 1
        assert len(made) <= number + 2
        alive = [place for place, reference in enumerate(made) if reference() is not None]
        assert set(alive) <= {number, number + 1}
        assert sum(reference() is not None for reference in opened) <= 2
    assert len(made) == len(opened) == 6 and threading.current_thread() not in threads and len(threads) == 1
    mini_batches = LazyPart(batch, range(6)).mini_batches([(i, i + 1) for i in range(6)])
    next(mini_batches)
    mini_batches.close()  # stock's backward hook leaves the iterator where it is
    assert len(made) <= 8


def message(function, *args, **kwargs):
    with pytest.raises(ValueError, match=r"^row 1 of the batch, column 'positive': ") as error:
        function(*args, **kwargs)
    return re.sub(r"0x\w+", "", str(error.value))


@pytest.mark.parametrize("embed_once", [True, False])
def test_a_bad_picture_is_named_as_by_the_eager_collator(tiny_multimodal, rows, embed_once):
    cut_off = as_png(picture(300, 300, 0))[:2000]  # its head tells a size
    for bad in ("không-có.png", b"GIF8 nothing", cut_off, {"bytes": as_png(Image.new("RGB", (900, 2))), "path": None}):
        batch = [dict(row) for row in rows[:3]]
        batch[1] |= {"positive": "", "positive_image": bad}
        loss = CachedDLELoss(tiny_multimodal, mini_batch_size=2, embed_once=embed_once)
        lazily = message(step, tiny_multimodal, loss, batch, lazy_images=True)
        assert lazily == message(MixedTaskCollator(tiny_multimodal.preprocess), batch)
    # What the collator sees without opening is an error there.
    batch[1] |= {"positive": "", "positive_image": None}
    message(MixedTaskCollator(tiny_multimodal.preprocess, lazy_images=True), batch)


def test_an_input_that_the_model_refuses_is_named_by_its_row(tiny_multimodal, rows, monkeypatch):
    preprocess = tiny_multimodal[0].preprocess

    def refusing(inputs, **kwargs):
        if any("mèo" in str(item) for item in inputs):
            raise RuntimeError("no cats")
        return preprocess(inputs, **kwargs)

    monkeypatch.setattr(tiny_multimodal[0], "preprocess", refusing)
    with pytest.raises(ValueError, match="row 2 of the batch, column 'anchor': no cats"):
        step(tiny_multimodal, CachedDLELoss(tiny_multimodal), [rows[3], rows[1], rows[0]], lazy_images=True)


def test_other_losses_and_collators_say_what_is_missing(tiny_multimodal, rows):
    model = tiny_multimodal
    columns, labels = features_of(MixedTaskCollator(model.preprocess, lazy_images=True)(rows))
    for loss in (DLELoss(model), SupConNLILoss(model)):
        with pytest.raises(TypeError, match="needs CachedDLELoss"):
            loss(columns, labels)
    with pytest.raises((AttributeError, TypeError), match=r"column 'anchor' are not opened yet.*only CachedDLELoss"):
        MultipleNegativesRankingLoss(model)(columns, labels)
    with pytest.raises(ValueError, match=r"preprocess_fn=model\.preprocess"):
        MixedTaskCollator(lambda inputs: model.preprocess(inputs), lazy_images=True)
    with pytest.raises(ValueError, match="stock losses"):
        ScoreCollator(model.preprocess, lazy_images=True)
    weights = torch.ones(len(rows))
    assert CachedSupConNLILoss(model, mini_batch_size=2)(columns, weights).isfinite()


def test_decoded_pictures_are_warned_of(tiny_multimodal, caplog):
    from transformers.utils import logging

    row = {"task": "ocr", "anchor": "Đọc.", "positive": None, "positive_image": WIDE}  # others warn of 'anchor'
    logger = logging.get_logger("transformers")
    logger.addHandler(caplog.handler)
    try:
        MixedTaskCollator(tiny_multimodal.preprocess, lazy_images=True)([row])
    finally:
        logger.removeHandler(caplog.handler)
    assert "decode=False" in caplog.text


def test_a_data_loader_can_send_them():
    inputs = LazyInputs("anchor", ["Gì?"], [[b"GIF8"]])
    again = pickle.loads(pickle.dumps(inputs))
    assert again.texts == ["Gì?"] and again.images == [[b"GIF8"]] and len(again) == 1
    assert not hasattr(inputs, "to") and not hasattr(inputs, "pin_memory")


def test_tokens_are_counted_without_opening(tiny_multimodal, rows):
    inputs = MixedTaskCollator(tiny_multimodal.preprocess, lazy_images=True)(rows)["anchor_input_ids"]
    batch = LazyBatch([inputs], tiny_multimodal, torch.device("cpu"))
    eager = MixedTaskCollator(tiny_multimodal.preprocess)(rows)["anchor_attention_mask"].sum(dim=1).tolist()
    assert batch.lengths == eager
    assert [len(set(batch.by_image(range(8))))] == [8]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_the_stock_trainer_ends_with_the_same_weights(tiny_multimodal, tmp_path, workers):
    start = {name: value.clone() for name, value in tiny_multimodal.state_dict().items()}
    rng = np.random.default_rng(0)
    paths = []
    for number in range(8):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(rng.integers(0, 255, (56, 28 * (1 + number % 2), 3), dtype=np.uint8)).save(paths[-1])
    rows = Dataset.from_dict(
        {"anchor": ["Đọc."] * 8, "anchor_image": paths, "positive": SENTENCES, "task": ["ocr", "vqa_single"] * 4}
    )
    settings = SETTINGS | {"per_device_train_batch_size": 4, "save_strategy": "no", "eval_strategy": "no"}
    settings |= {"learning_rate": 1e-3, "dataloader_num_workers": workers, "max_steps": 3}
    results = []
    for lazy_images in (True, False):
        tiny_multimodal.load_state_dict(start)
        loss = CachedDLELoss(tiny_multimodal, mini_batch_size=3)
        folder = tmp_path / str(lazy_images)
        train_vipolyqwen(tiny_multimodal, rows, folder, loss=loss, lazy_images=lazy_images, **settings)
        results.append({name: value.clone() for name, value in tiny_multimodal.state_dict().items()})
    tiny_multimodal.load_state_dict(start)
    assert max(float((value - start[name]).abs().max()) for name, value in results[0].items()) > 1e-3
    for name, expected in results[1].items():
        torch.testing.assert_close(results[0][name], expected, atol=1e-4, rtol=0, msg=name)
    with pytest.raises(ValueError, match="lazy_images=True needs loss=CachedDLELoss"):
        train_vipolyqwen(tiny_multimodal, rows, tmp_path / "no", lazy_images=True, **settings)
