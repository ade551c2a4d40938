"""Inputs in one row without padding: values and gradients of one padded forward a column, for texts and images."""

from __future__ import annotations

import pytest
import torch

from st_vi.encoding.batches import _lengths
from st_vi.inputs.flat import flattened, padded
from st_vi.losses import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss, embed
from st_vi.losses.columns import content_ids
from st_vi.losses.embed import Inputs, embed_distinct
from st_vi.losses.grad_cache import _sorted_parts
from st_vi.stock.models import reads_flat
from tests.helpers.columns import PICTURES, TEXTS, assert_same, columns_of, loss_step, step
from tests.helpers.flash import CALLS, use_flash_attention

LABELS = torch.tensor([[0, 0.1], [0, 0.8], [1, float("nan")], [4, float("nan")], [4, float("nan")]])


def naive(model, columns, **kwargs):
    return step(model, [model(column)["sentence_embedding"] for column in columns_of(model, columns, **kwargs)])


def with_flash(model, monkeypatch):
    """Stock then flattens the texts of a text encoder by itself."""
    use_flash_attention(model[0].model, monkeypatch)
    model[0].unpad_inputs = model[0].unpad_inputs  # stock looks again


def test_texts_that_stock_flattened(tiny_model, forwards, monkeypatch):
    expected = naive(tiny_model, TEXTS)
    with_flash(tiny_model, monkeypatch)
    columns, shapes = columns_of(tiny_model, TEXTS), forwards(tiny_model)
    assert all("cu_seq_lens_q" in column for column in columns) and not reads_flat(tiny_model)
    assert_same(step(tiny_model, embed_distinct(tiny_model, columns, content_ids(columns))), expected, 1e-5)
    # Seven texts, and one of them once more as its row's own negative: one forward of their tokens.
    distinct = [
        len(ids)
        for ids in tiny_model.tokenizer([*{text for column in TEXTS for text in column}, TEXTS[0][1]])["input_ids"]
    ]
    assert shapes == [(1, sum(distinct))] and {tuple(sorted(call)) for call in CALLS} == {tuple(sorted(distinct))}


@pytest.mark.slow
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", [None, "<ocr> "])
def test_texts_and_images_in_one_row(tiny_multimodal, forwards, monkeypatch, side, prompt):
    tiny_multimodal.tokenizer.padding_side = side
    expected = naive(tiny_multimodal, PICTURES, prompt=prompt)
    features = columns_of(tiny_multimodal, PICTURES, prompt=prompt)
    grouped = step(tiny_multimodal, embed_distinct(tiny_multimodal, features, content_ids(features)))
    with_flash(tiny_multimodal, monkeypatch)
    features, shapes = columns_of(tiny_multimodal, PICTURES, prompt=prompt), forwards(tiny_multimodal)
    assert reads_flat(tiny_multimodal) and not any("cu_seq_lens_q" in column for column in features)
    flat = step(tiny_multimodal, embed_distinct(tiny_multimodal, features, content_ids(features)))
    assert_same(flat, expected, 1e-5)
    assert_same(flat, grouped, 1e-5)
    (shape,) = shapes
    assert shape[0] == 1 and shape[1] < sum(int(column["attention_mask"].sum()) for column in features)
    tower, language_model = ([call for call in CALLS if (sum(call) == shape[1]) is which] for which in (False, True))
    # Two images and eight inputs are distinct, in two layers each.
    assert list(map(len, tower)) == [2, 2] and list(map(len, language_model)) == [8, 8]


@pytest.mark.slow
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", ["texts", "images"])
def test_losses(tiny_model, tiny_multimodal, monkeypatch, kind, cached):
    model, columns, labels = (tiny_model, TEXTS, None) if kind == "texts" else (tiny_multimodal, PICTURES, LABELS)
    plain, cache = (SupConNLILoss, CachedSupConNLILoss) if kind == "texts" else (DLELoss, CachedDLELoss)
    expected = loss_step(model, plain(model, embed_once=False), columns, labels)
    with_flash(model, monkeypatch)
    loss = cache(model, mini_batch_num_tokens=60) if cached else plain(model)
    assert_same(loss_step(model, loss, columns, labels), expected, 1e-5)


def test_a_row_has_at_most_so_many_tokens(tiny_model, forwards, monkeypatch):
    expected = naive(tiny_model, TEXTS)
    with_flash(tiny_model, monkeypatch)
    monkeypatch.setattr(embed, "_MOST_TOKENS", 24)
    columns, shapes = columns_of(tiny_model, TEXTS), forwards(tiny_model)
    assert_same(step(tiny_model, embed_distinct(tiny_model, columns)), expected, 1e-5)
    rows = []  # as many as fit, the shortest first
    for length in sorted(length for column in columns for length in column["cu_seq_lens_q"].diff().tolist()):
        if rows and rows[-1] + length <= 24:
            rows[-1] += length
        else:
            rows.append(length)
    assert [total for _, total in shapes] == rows and len(rows) > 2


def test_mini_batches_take_inputs_of_all_lengths(tiny_model):
    """Without padding in the columns, its token is unknown; in one row there is none."""
    columns = [tiny_model.preprocess([text]) for text in ("Trời mưa.", "Trời mưa to nên đường phố ngập nước.")]
    apart, together = (Inputs.read(columns, flat) for flat in (False, True))
    assert apart.pad is None and apart.lengths[0] < apart.lengths[1]
    assert [len(_sorted_parts(inputs, None)[0]) for inputs in (apart, together)] == [2, 1]


def test_there_and_back(tiny_multimodal):
    features = tiny_multimodal.preprocess(PICTURES[0])
    row = flattened(features | {"seq_idx": features["input_ids"]})
    assert row["cu_seq_lens_q"].tolist()[-1] == row["input_ids"].shape[1] == int(features["attention_mask"].sum())
    assert row["seq_idx"].tolist()[0] == features["attention_mask"].nonzero()[:, 0].tolist()
    back = padded(row)
    assert back.keys() == {*features, "seq_idx"} and torch.equal(back["pixel_values"], features["pixel_values"])
    again = flattened(back)
    assert all(torch.equal(again[name], row[name]) for name in row if isinstance(row[name], torch.Tensor))
    assert torch.equal(content_ids([row])[0], content_ids([features])[0])


def test_boundaries_tell_that_inputs_are_in_one_row(tiny_multimodal, monkeypatch):
    """Whatever mask is there, too: for the backbone, the pooling, the losses and the counting of tokens."""
    features = tiny_multimodal.preprocess(PICTURES[1])
    row, lengths = flattened(features), features["attention_mask"].sum(dim=1).tolist()
    both = row | {"attention_mask": torch.ones_like(row["input_ids"])}
    assert torch.equal(content_ids([both])[0], content_ids([features])[0])
    assert _lengths(both, PICTURES[1]) == Inputs.read([both]).lengths == lengths and Inputs.read([both]).flat
    expected = tiny_multimodal(features)["sentence_embedding"]
    with pytest.raises(ValueError, match="need FlashAttention"):
        tiny_multimodal(dict(both))
    with_flash(tiny_multimodal, monkeypatch)
    for found in (tiny_multimodal(dict(both))["sentence_embedding"], *embed_distinct(tiny_multimodal, [both])):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_boundaries_of_other_tokens(tiny_multimodal, monkeypatch):
    features = tiny_multimodal.preprocess(PICTURES[1])
    row = flattened(features)
    with_flash(tiny_multimodal, monkeypatch)
    total = row["input_ids"].shape[1]
    for strange in (features | {"cu_seq_lens_q": row["cu_seq_lens_q"]}, row | {"cu_seq_lens_q": torch.tensor([0, 3])}):
        for read in (tiny_multimodal, lambda one: Inputs.read([one]), lambda one: content_ids([one])):
            with pytest.raises(ValueError, match=rf"one row of ({total}|3) tokens, and input_ids are \("):
                read(dict(strange))


def test_without_flash_attention_rows_stay_apart(tiny_multimodal):
    features = tiny_multimodal.preprocess(PICTURES[1])
    with pytest.raises(ValueError, match="need FlashAttention, or they would attend to each other"):
        tiny_multimodal(flattened(features))
    assert not reads_flat(tiny_multimodal) and not Inputs.read([features]).flat
