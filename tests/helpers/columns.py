"""Columns of texts and images with repeats, for the tests of losses."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from tests.conftest import SENTENCES

S = [sentence.rsplit(maxsplit=i)[0] for i, sentence in enumerate(SENTENCES)]  # of many lengths


TEXTS = [
    [S[0], S[0], S[1], S[2], S[0]],  # one anchor three times
    [S[3], S[4], S[3], S[0], S[3]],  # one positive under two anchors; an anchor as a positive
    [S[5], S[1], S[4], S[2], "mưa"],  # an anchor as its own negative
]


def picture(width, height, seed):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))


WIDE, TALL = picture(84, 56, 0), picture(28, 56, 1)


PICTURES = [
    [
        {"image": WIDE, "text": "Có mấy con mèo?"},
        {"image": WIDE, "text": "Màu gì?"},
        TALL,
        {"image": [TALL, WIDE], "text": "Hai bức ảnh này khác nhau ở đâu?"},
        "Trời mưa to nên đường phố ngập nước, xe cộ không đi lại được nữa.",
    ],
    ["Ba con.", "Đen.", {"image": [WIDE, TALL], "text": "Đen."}, "Ba con.", TALL],
]


def assert_same(first, second, tolerance):
    for mine, theirs in zip(first[0], second[0], strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)
    assert first[1].keys() == second[1].keys() and first[1]
    for name, expected in second[1].items():
        most = tolerance * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(first[1][name], expected, atol=most, rtol=0, msg=lambda m, name=name: f"{name}: {m}")


def columns_of(model, columns, **kwargs):
    return [model.preprocess(column, **kwargs) for column in columns]


def step(model, embeddings):
    """Values and gradients, with another weight for every number of every embedding."""
    model.zero_grad()
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(e.shape, generator=generator, dtype=e.dtype) for e in embeddings]
    sum((e * w).sum() for e, w in zip(embeddings, weights, strict=True)).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [e.detach() for e in embeddings], gradients


def loss_step(model, loss, columns, labels):
    """The value of a loss, and the gradients."""
    model.zero_grad()
    value = loss(columns_of(model, columns), labels)
    value = sum(value.values()) if isinstance(value, dict) else value
    value.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return [value.detach()], gradients


def features_of(batch):
    """Columns and labels of a collated batch, as the stock trainer has them."""
    sides = ("anchor", "positive")
    return [{k.removeprefix(f"{s}_"): v for k, v in batch.items() if k.startswith(f"{s}_")} for s in sides], batch[
        "label"
    ]


class Summed(torch.nn.Module):
    """The sum of the components of a loss, one scalar as most stock losses have it."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, features, labels):
        return sum(self.loss(features, labels).values())


# Rank 0 has two different texts of one length in each column, rank 1 has ten of all lengths.
BY_RANK = [[[S[0]] * 4, ["mưa"] * 4, [S[2]] * 4], [S[:4], S[4:8], [S[2], "mưa", " ".join(SENTENCES), S[1]]]]


NAN = float("nan")


LABELS = torch.tensor(
    [[0, 0.1], [2, NAN], [0, 0.8], [1, NAN], [4, NAN], [0, 0.8], [2, NAN], [1, NAN], [4, NAN], [4, NAN], [3, NAN]],
    dtype=torch.float64,
)
