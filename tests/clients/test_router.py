"""The stock `Router`: questions and passages through modules of their own, in training, saved and loaded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding

from st_vi import (
    AttentionPooling,
    CachedDLELoss,
    CachedSupConNLILoss,
    DLELoss,
    MixedTaskCollator,
    MLPHead,
    SupConNLILoss,
    load,
)
from tests.clients.conftest import QUERIES, TEXTS
from tests.conftest import tiny_tokenizer

ROUTES = {"anchor": "query", "positive": "document"}
NAN = float("nan")
# A passage under two questions, a question that is its own passage, and one that is another's.
ANCHORS = [*QUERIES, TEXTS[1], TEXTS[2], TEXTS[3]]
POSITIVES = [TEXTS[0], TEXTS[5], TEXTS[4], TEXTS[2], TEXTS[0]]
LABELS = [[0, 0.2], [0, 0.9], [1, NAN], [1, NAN], [2, NAN]]


@pytest.fixture(params=["two encoders", "static questions"])
def routed(request, tiny_base):
    torch.manual_seed(3)
    passages = [Transformer(str(tiny_base)), AttentionPooling(32), MLPHead(32, 24, num_layers=2, activation="gelu")]
    if request.param == "two encoders":
        questions = [Transformer(str(tiny_base)), Pooling(32, "cls"), MLPHead(32, 24, activation="tanh")]
    else:
        questions = [StaticEmbedding(tiny_tokenizer().backend_tokenizer, embedding_dim=16), MLPHead(16, 24)]
    return SentenceTransformer(modules=[Router.for_query_document(questions, passages), Normalize()], device="cpu")


def columns(model):
    """As the trainer gives them to a loss."""
    texts = {"anchor": ANCHORS, "positive": POSITIVES}
    return [model.preprocess(texts[name], task=task) | {"task": task} for name, task in ROUTES.items()]


def step(model, loss, labels=None):
    model.zero_grad()
    value = loss(columns(model), labels)
    (sum(value.values()) if isinstance(value, dict) else value).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["supcon", "dle"])
def test_merged_and_cached_losses_keep_the_routes_apart(routed, kind):
    plain, cached, labels = {
        "supcon": (SupConNLILoss, CachedSupConNLILoss, None),
        "dle": (DLELoss, CachedDLELoss, torch.tensor(LABELS)),
    }[kind]
    expected = step(routed, plain(routed, embed_once=False), labels)
    assert {name.split(".")[2] for name in expected} == {"query", "document"}
    losses = [plain(routed)]
    if isinstance(routed[0].sub_modules["query"][0], Transformer):  # no mini-batches of a StaticEmbedding
        losses.append(cached(routed, mini_batch_size=2))
    for loss in losses:
        actual = step(routed, loss, labels)
        assert actual.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(actual[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def moved_since(start: dict[str, torch.Tensor], model: SentenceTransformer) -> set[str]:
    """The routes whose weights have changed."""
    return {name.split(".")[2] for name, p in model.named_parameters() if not torch.equal(p, start[name])}


@pytest.mark.parametrize("routed", ["two encoders"], indirect=True)
def test_the_trainer_trains_both_routes_on_mixed_tasks(routed, tmp_path):
    """The collator is ours, so it has the routes."""
    rows = Dataset.from_dict({"anchor": ANCHORS, "positive": POSITIVES, "task": ["instr"] * len(ANCHORS)})
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"), max_steps=2, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True
    )
    start = {name: p.clone() for name, p in routed.named_parameters()}
    collator = MixedTaskCollator(routed.preprocess, router_mapping=ROUTES)
    trainer = SentenceTransformerTrainer(
        routed, arguments, train_dataset=rows, loss=DLELoss(routed), data_collator=collator
    )
    trainer.train()
    assert moved_since(start, routed) == {"query", "document"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("routed", "inner"),
    [
        ("two encoders", SupConNLILoss),
        ("two encoders", CachedSupConNLILoss),
        ("two encoders", DLELoss),
        ("two encoders", CachedDLELoss),
        ("static questions", SupConNLILoss),
    ],
    indirect=["routed"],
)
def test_the_trainer_trains_both_routes_under_matryoshka(routed, inner, tmp_path):
    data = {"anchor": ANCHORS, "positive": POSITIVES}
    rows = Dataset.from_dict(data | ({"label": LABELS} if inner in (DLELoss, CachedDLELoss) else {}))
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path / "run"),
        max_steps=2,
        learning_rate=0.01,
        router_mapping=ROUTES,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    start = {name: p.clone() for name, p in routed.named_parameters()}
    loss = MatryoshkaLoss(routed, inner(routed), [24, 8])
    SentenceTransformerTrainer(routed, arguments, train_dataset=rows, loss=loss).train()
    assert moved_since(start, routed) == {"query", "document"}

    routed.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    again = load(tmp_path / "saved", device="cpu")
    for encode in ("encode_query", "encode_document"):
        np.testing.assert_allclose(getattr(again, encode)(TEXTS), getattr(routed, encode)(TEXTS), atol=1e-6)
    assert abs(again.encode_query(TEXTS) - again.encode_document(TEXTS)).max() > 0.1
