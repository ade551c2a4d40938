"""`RatingLoss` against a loop over pairs of rows, and in the stock trainer."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.modules import BoW

from st_vi import load
from st_vi.evaluation import RatingEvaluator
from st_vi.losses import RatingLoss
from st_vi.losses.own_model import check_own_model
from st_vi.modules import RatingHead
from tests.conftest import SENTENCES


def model_of(size=3, **settings):
    return SentenceTransformer(
        modules=[BoW([str(number) for number in range(size)]), RatingHead(size, **settings)], device="cpu"
    )


def vectors(rows, size=3):
    made = torch.randn(2, rows, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return [column.requires_grad_() for column in made]


@pytest.mark.parametrize("regions", [1, 2, 4])
def test_is_the_mean_over_the_pairs(regions):
    model = model_of(num_levels=4)
    head = model[-1].double()
    head.rating_weight.data.normal_(generator=torch.Generator().manual_seed(1))
    columns, scores = vectors(5), torch.tensor([0.1, 0.9, 0.9, 0.4, 0.0])
    inputs = [*columns, *head.parameters()]
    loss = RatingLoss(model, regions=regions).compute_loss_from_embeddings(columns, scores)
    p = head.log_probabilities(*columns).exp()
    levels, width = [0, 3, 3, 1, 0], 4 // regions
    terms = []
    for i in range(5):
        for j in range(5):
            low, high = levels[j] // width * width, levels[i] // width * width + width - 1
            if scores[i] > scores[j] and low < high:
                terms.append(-sum(p[i, a] * p[j, b] for a in range(high + 1) for b in range(low, a)).log())
    expected = sum(terms) / len(terms)
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(
        *(torch.autograd.grad(value, inputs, retain_graph=True) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("scores", [[0.5], [0.5, 0.5]])
def test_a_batch_without_pairs_is_0_with_a_gradient(scores):
    columns = vectors(len(scores))
    loss = RatingLoss(model_of()).compute_loss_from_embeddings(columns, torch.tensor(scores))
    loss.backward()
    assert loss.item() == 0 and not columns[0].grad.any()


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        (3, torch.zeros(2), "two columns of inputs, got 3"),
        (2, torch.zeros(2, 1), "one number a row, got torch.float32 of shape \\(2, 1\\)"),
        (2, None, "one number a row, got None"),
        (2, torch.tensor([0, 2]), "scores must lie between 0 and 1, as the RatingHead says, got 2"),
        (2, torch.tensor([0.0, math.nan]), "scores must lie between 0 and 1"),
    ],
)
def test_what_it_refuses(columns, labels, message):
    with pytest.raises(ValueError, match=message):
        RatingLoss(model_of()).compute_loss_from_embeddings([torch.ones(2, 3)] * columns, labels)


def test_whole_numbers_are_scores(tiny_model):
    """Stars are, and the stock collator makes integers of them, also where a batch of a stream happens to be whole."""
    RatingHead.add_to(tiny_model, num_levels=5, lowest=1, highest=5)
    loss = RatingLoss(tiny_model)
    found = []
    for labels in (torch.tensor([1, 5, 3, 4]), torch.tensor([1.0, 5.0, 3.0, 4.0])):
        value = loss([tiny_model.preprocess(SENTENCES[:4]), tiny_model.preprocess(SENTENCES[4:])], labels)
        value.backward()
        found.append([value, *(parameter.grad for parameter in tiny_model.parameters() if parameter.grad is not None)])
        tiny_model.zero_grad()
    assert found[0][0] > 0 and len(found[0]) > 10
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_models_without_a_head_and_with_two():
    plain = SentenceTransformer(modules=[BoW(["a"])], device="cpu")
    with pytest.raises(ValueError, match=r"needs one RatingHead, and has 0: RatingHead\.add_to"):
        RatingLoss(plain)
    with pytest.raises(ValueError, match="needs one RatingHead, and has 2"):
        RatingLoss(SentenceTransformer(modules=[*model_of(), RatingHead(3)], device="cpu"))
    with pytest.raises(ValueError, match="regions must be a whole number from 1 to 9, got 0"):
        RatingLoss(model_of(), regions=0)


def test_embeds_and_describes_itself():
    model = model_of(3)
    columns = [model.preprocess(texts) for texts in (["0 1", "2"], ["0", "1"])]
    loss = RatingLoss(model, regions=9, embed_once=False)
    embeddings = [torch.tensor([[1.0, 1, 0], [0, 0, 1]]), torch.tensor([[1.0, 0, 0], [0, 1, 0]])]
    scores = torch.tensor([1.0, 0.0])
    torch.testing.assert_close(loss(columns, scores), loss.compute_loss_from_embeddings(embeddings, scores))
    assert repr(loss) == "RatingLoss(regions=9, flood=True, embed_once=False)"


@pytest.mark.slow
def test_the_stock_trainer_trains_saves_and_reloads_model_and_head(tiny_model, tmp_path):
    first, second = SENTENCES, SENTENCES[1:] + SENTENCES[:1]
    scores = [0.0, 5.0, 2.0, 4.0, 1.0, 3.0, 2.5, 0.5]
    RatingHead.add_to(tiny_model, num_levels=6, highest=5)
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    loss = RatingLoss(tiny_model)
    check_own_model(loss, tiny_model)
    evaluator = RatingEvaluator(first, second, scores)
    untrained = evaluator(tiny_model)
    arguments = SentenceTransformerTrainingArguments(
        str(tmp_path), max_steps=15, per_device_train_batch_size=8, learning_rate=1e-3, save_strategy="steps",
        learning_rate_mapping={"rating_": 3e-2}, save_steps=15, eval_strategy="steps", eval_steps=15,
        load_best_model_at_end=True, metric_for_best_model="eval_spearman", report_to="none", use_cpu=True,
        disable_tqdm=True,
    )  # fmt: skip
    rows = Dataset.from_dict({"first": first, "second": second, "score": scores})
    SentenceTransformerTrainer(tiny_model, arguments, train_dataset=rows, loss=loss, evaluator=evaluator).train()
    changed = [name for name, value in tiny_model.state_dict().items() if not torch.equal(value, before[name])]
    for part in ("0.model.encoder", "4.rating_weight", "4.rating_bias", "4.rating_scale"):
        assert any(part in name for name in changed), part
    trained = evaluator(tiny_model)
    assert trained["spearman"] > untrained["spearman"] + 0.2
    assert trained["log_likelihood"] > untrained["log_likelihood"]
    again = load(tmp_path / "checkpoint-15", device="cpu")
    assert evaluator(again) == pytest.approx(trained, abs=1e-6)


def test_the_head_is_that_of_the_model_that_the_trainer_makes(tiny_model, tmp_path):
    RatingHead.add_to(tiny_model)
    rows = Dataset.from_dict({"first": SENTENCES, "second": SENTENCES[1:] + SENTENCES[:1], "score": [0.0, 1.0] * 4})
    arguments = SentenceTransformerTrainingArguments(str(tmp_path), max_steps=1, report_to="none", use_cpu=True)
    trainer = SentenceTransformerTrainer(
        args=arguments, model_init=lambda: copy.deepcopy(tiny_model), train_dataset=rows, loss=RatingLoss
    )
    for _ in range(2):  # as in a search of hyperparameters
        trainer.train()
        assert trainer.loss.head is trainer.model[-1]
        assert not torch.equal(trainer.model[-1].rating_weight, tiny_model[-1].rating_weight)
