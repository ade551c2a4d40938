"""`SupConNLILoss` against the stock loss, a naive loop on texts, two processes, and in the stock trainer."""

from __future__ import annotations

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss, MultipleNegativesRankingLoss

from st_vi.losses import SupConNLILoss
from st_vi.losses.columns import content_ids
from tests.conftest import SENTENCES
from tests.helpers.naive import naive_direction, naive_masks
from tests.helpers.processes import gloo, on_two


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def step(model, loss, columns, labels=None):
    model.zero_grad()
    value = loss([model.preprocess(column) for column in columns], labels)
    value.backward()
    return value.detach(), gradients(model)


def assert_same_step(first, second, **tolerance):
    torch.testing.assert_close(first[0], second[0], **tolerance)
    assert first[1].keys() == second[1].keys()
    for name in first[1]:
        torch.testing.assert_close(first[1][name], second[1][name], msg=name, **tolerance)


DISTINCT = [SENTENCES[:2], SENTENCES[2:4], SENTENCES[4:6], SENTENCES[6:8]]


@pytest.mark.parametrize("columns", [2, 3, 4])
def test_distinct_rows_equal_the_stock_loss(tiny_model, columns):
    tiny_model.double()
    stock = step(tiny_model, MultipleNegativesRankingLoss(tiny_model, scale=20), DISTINCT[:columns])
    assert_same_step(step(tiny_model, SupConNLILoss(tiny_model), DISTINCT[:columns]), stock, atol=1e-6, rtol=1e-6)


def test_symmetric_equals_the_stock_symmetric_loss(tiny_model):
    tiny_model.double()
    directions = ("query_to_doc", "doc_to_query")
    stock = MultipleNegativesRankingLoss(tiny_model, scale=20, directions=directions, partition_mode="per_direction")
    ours = SupConNLILoss(tiny_model, symmetric=True)
    columns = DISTINCT[:2]
    assert_same_step(step(tiny_model, ours, columns), step(tiny_model, stock, columns), atol=1e-6, rtol=1e-6)


S = SENTENCES
REPEATED = [
    [S[0], S[0], S[1], S[2], S[0]],  # one anchor three times
    [S[3], S[4], S[3], S[0], S[3]],  # one positive under two anchors; an anchor as a positive
    [S[5], S[1], S[4], S[2], S[6]],  # an anchor as its own negative; a positive of the same anchor as a negative
]


@pytest.mark.parametrize("same_anchor", ["positive", "mask", "negative"])
def test_repeated_texts_equal_the_naive_loop(tiny_model, same_anchor):
    tiny_model.double()
    loss = SupConNLILoss(tiny_model, temperature=0.1, hard_negative_weight=0.5, same_anchor=same_anchor)
    actual = step(tiny_model, loss, REPEATED)

    tiny_model.zero_grad()
    a, p, n = (tiny_model(tiny_model.preprocess(column))["sentence_embedding"] for column in REPEATED)
    masks = naive_masks(REPEATED[0], REPEATED[1], REPEATED[2:], same_anchor, True)
    expected = naive_direction(a, [*p, *n], masks, 0.1, 0.5).mean()
    expected.backward()
    assert_same_step(actual, (expected.detach(), gradients(tiny_model)), atol=1e-6, rtol=1e-6)


def test_scores_weigh_the_rows(tiny_model):
    loss = SupConNLILoss(tiny_model)
    embeddings = [torch.randn(4, 8) for _ in range(3)]
    rows = torch.stack([loss.compute_loss_from_embeddings(embeddings, torch.eye(4)[i]) for i in range(4)])
    weights = torch.tensor([1.0, 0.5, 0.5, 2.0])
    actual = loss.compute_loss_from_embeddings(embeddings, weights)
    torch.testing.assert_close(actual, (rows * weights).sum() / 4.0)
    torch.testing.assert_close(loss.compute_loss_from_embeddings(embeddings), rows.mean())


def test_labels_that_are_no_weights_are_refused(tiny_model):
    loss = SupConNLILoss(tiny_model)
    with pytest.raises(ValueError, match="one float a row"):
        loss.compute_loss_from_embeddings([torch.eye(2)] * 2, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="positive column"):
        loss.compute_loss_from_embeddings([torch.eye(2)])


def test_matryoshka_wraps_it(tiny_model):
    loss = SupConNLILoss(tiny_model)
    value, grads = step(tiny_model, MatryoshkaLoss(tiny_model, loss, [32, 8]), REPEATED)
    embeddings = [tiny_model(tiny_model.preprocess(column))["sentence_embedding"] for column in REPEATED]
    ids = content_ids([tiny_model.preprocess(column) for column in REPEATED])
    expected = sum(loss.compute_loss_from_embeddings([e[:, :d] for e in embeddings], ids=ids) for d in (32, 8))
    torch.testing.assert_close(value, expected.detach())
    assert grads


def test_text_ids_ignore_padding_and_tell_texts_apart(tiny_model):
    texts = [*SENTENCES, SENTENCES[0], " ".join(reversed(SENTENCES[0].split()))]
    tiny_model.tokenizer.padding_side = "left"
    (left,) = content_ids([tiny_model.preprocess(texts)])
    tiny_model.tokenizer.padding_side = "right"
    (right,) = content_ids([tiny_model.preprocess(texts)])
    alone = torch.cat([content_ids([tiny_model.preprocess([text])])[0] for text in texts])
    assert torch.equal(left, right) and torch.equal(right, alone)
    assert (right[:, None] == right).sum() == len(texts) + 2  # the diagonal, and the one repeated text twice


def test_text_ids_of_flattened_inputs(tiny_model):
    rows = [tiny_model.tokenizer(text)["input_ids"] for text in SENTENCES]
    ends = torch.tensor([0, *(len(row) for row in rows)]).cumsum(0)
    flattened = {"input_ids": torch.tensor([[token for row in rows for token in row]]), "cu_seq_lens_q": ends}
    assert torch.equal(content_ids([flattened])[0], content_ids([tiny_model.preprocess(SENTENCES)])[0])


def with_pictures(tiny_model, pictures):
    """What Qwen2-VL's processor gives for rows with these images: all patches of all rows in one tensor."""
    features = tiny_model.preprocess([SENTENCES[0]] * len(pictures))
    flat = [picture for row in pictures for picture in row]
    return features | {
        "pixel_values": torch.cat(flat),
        "image_grid_thw": torch.tensor([[1, 1, len(picture)] for picture in flat]),
        "num_images_per_sample": torch.tensor([len(row) for row in pictures]),
    }


def test_pictures_are_part_of_what_is_compared(tiny_model):
    a, b, c = torch.randn(4, 6), torch.randn(2, 6), torch.randn(4, 6)
    rows = [[a], [], [a, b], [b, a], [a.flip(0)], [a], [c], [torch.cat([a, b])]]
    (ids,) = content_ids([with_pictures(tiny_model, rows)])
    same = ids[:, None] == ids
    expected = torch.eye(8, dtype=torch.bool)
    expected[0, 5] = expected[5, 0] = True
    assert torch.equal(same, expected)
    (text,) = content_ids([tiny_model.preprocess([SENTENCES[0]])])
    assert ids[1] == text[0]  # a row without an image is what it is in a column without any


def test_inputs_that_cannot_be_compared_have_no_ids(tiny_model):
    text = tiny_model.preprocess(SENTENCES[:2])
    assert content_ids([text, text | {"pixel_values": torch.ones(2, 3, 8, 8)}]) is None
    assert content_ids([text | {"pixel_values_videos": torch.ones(2, 3)}]) is None
    assert content_ids([{"input_ids": torch.ones(5)}]) is None
    whole = {"pixel_values": torch.ones(4, 3), "image_grid_thw": torch.tensor([[1, 2, 2]])}
    whole |= {"num_images_per_sample": torch.tensor([1, 0])}
    assert content_ids([text | whole]) is not None
    for part in ("image_grid_thw", "num_images_per_sample"):
        assert content_ids([text | {key: value for key, value in whole.items() if key != part}]) is None


def joint_loss(embeddings, ids, **settings):
    embeddings = [e.clone().requires_grad_() for e in embeddings]
    value = SupConNLILoss(None, hard_negative_weight=0.5, **settings).compute_loss_from_embeddings(embeddings, ids=ids)
    value.backward()
    return value.item(), [e.grad for e in embeddings]


def run_rank(rank, folder, embeddings, ids):
    with gloo(rank, folder):
        rows = slice(3 * rank, 3 * rank + 3)
        embeddings, ids = [e[rows] for e in embeddings], [i[rows] for i in ids]
        own = {s: joint_loss(embeddings, ids, symmetric=s, gather_across_devices=True) for s in (False, True)}
        torch.save(own, f"{folder}/rank{rank}")


def test_two_processes_equal_one_with_the_joint_batch(tmp_path):
    torch.manual_seed(0)
    embeddings = [torch.randn(6, 4) for _ in range(3)]
    # An anchor on both devices, a positive on both, a negative on one that is a positive on the other.
    ids = [torch.tensor([1, 2, 3, 1, 4, 5]), torch.tensor([6, 7, 8, 9, 6, 10]), torch.tensor([11, 12, 9, 13, 6, 14])]
    on_two(run_rank, str(tmp_path), embeddings, ids)
    ranks = [torch.load(tmp_path / f"rank{rank}") for rank in (0, 1)]
    for symmetric in (False, True):
        value, grads = joint_loss(embeddings, ids, symmetric=symmetric)
        (first, first_grads), (second, second_grads) = (rank[symmetric] for rank in ranks)
        assert (first + second) / 2 == pytest.approx(value, rel=1e-6)
        for own, other, expected in zip(first_grads, second_grads, grads, strict=True):
            torch.testing.assert_close(torch.cat([own, other]) / 2, expected)  # the mean over devices, as DDP takes it
