"""Balanced losses with a model: cached and not, in the stock trainer, resumed, with the recipe."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import AdaptiveLayerLoss, MatryoshkaLoss

from st_vi import CachedDLELoss, DLELoss, MixedTaskCollator
from st_vi.losses import DLEMonitor, DynamicWeightAverage, LossKeeper
from st_vi.losses.balance import BALANCES, BalanceName
from st_vi.recipes import train_vipolyqwen
from tests.conftest import SENTENCES
from tests.helpers.columns import LABELS, NAN, TEXTS
from tests.helpers.one_epoch import SETTINGS
from tests.helpers.words import Stop, Words, columns_of_words

SETTINGS = SETTINGS | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
SETTINGS |= {"num_train_epochs": 2, "save_steps": 3, "warmup_steps": 0, "disable_tqdm": True}


@pytest.fixture
def rows():
    halves = [sentence.split(maxsplit=4) for sentence in SENTENCES]
    columns = {"anchor": [" ".join(words[:4]) for words in halves], "positive": [words[4] for words in halves]}
    tasks = {"task": ["ocr", "text_pair"] * 4, "score": [NAN, 0.2, NAN, 0.7] * 2}
    return Dataset.from_dict(columns | tasks)


@pytest.mark.slow
@pytest.mark.parametrize("name", BALANCES)
def test_cached_equals_uncached(name):
    """Four steps, the same values, weights and gradients: of the model, and of the strategy's own parameters."""
    labels = torch.tensor([[0, 0.1], [0, 0.9], [1, NAN], [2, NAN]])
    results = []
    for kind, more in ((DLELoss, {}), (CachedDLELoss, {"mini_batch_size": 3, "max_matrix_bytes": 1})):
        strategy = DynamicWeightAverage(every=1) if name == "dynamic_weight_average" else name
        loss = kind(Words(), negatives="batch", balance=strategy, **more)
        loss.balance.start()
        found = []
        for step in range(4):
            torch.manual_seed(step)
            loss.zero_grad()
            values = loss(columns_of_words(), labels[[0, 1, 2, 2]] if step == 2 else labels)
            (torch.stack(list(values.values())).sum() / 2).backward()  # as in gradient accumulation
            found += [*values.values(), *(p.grad for p in loss.parameters() if p.grad is not None)]
            with torch.no_grad():
                for parameter in loss.parameters():
                    parameter -= 0.3 * parameter.grad
            loss.balance.step()
        results.append([value.detach() for value in found])
        log = loss.balance.take_log()
    assert any(abs(float(total / count) - 1) > 1e-3 for total, count in log.values() if count)
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tiny_model, rows, tmp_path):
    """All strategies with a state at once, a loss each, with gradient accumulation."""
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    halves = DatasetDict({"a": rows, "b": rows.select(range(7, -1, -1)), "c": rows})

    def losses():
        tiny_model.load_state_dict(start)
        return {
            "a": DLELoss(tiny_model, balance="uncertainty"),
            "b": CachedDLELoss(tiny_model, balance="grad_norm"),
            "c": DLELoss(tiny_model, balance=DynamicWeightAverage(every=1)),
        }

    results = []
    for folder, stops in (("whole", [[]]), ("parts", [[Stop()], []])):
        for number, callbacks in enumerate(stops):
            loss = losses()  # the trainer brings the weights of the model back, the keeper those of the loss
            train_vipolyqwen(
                tiny_model,
                halves,
                tmp_path / folder,
                loss=loss,
                resume=bool(number),
                callbacks=callbacks,
                **SETTINGS | {"save_strategy": "steps" if len(stops) > 1 else "no"},
            )
        states = [part.balance.state()["values"] for part in loss.values()]
        results.append((states, {name: value.clone() for name, value in tiny_model.state_dict().items()}))
    (whole, model), (parts, resumed) = results
    assert whole == parts
    assert max(abs(s) for s in whole[0]["log_variances"]) > 0.01
    assert max(abs(w - 1) for w in whole[1]["task_weights"]) > 0.01 and any(whole[1]["first_losses"])
    assert whole[2]["steps"] == 6 and any(whole[2]["before"])
    for name, value in model.items():
        assert torch.equal(value, resumed[name]), name


@pytest.mark.slow
def test_the_trainer_takes_the_gradient_of_one_step(tiny_model, rows, tmp_path):
    """Neither those of the steps before, nor weight decay, nor the learning rate of the model."""
    loss = CachedDLELoss(tiny_model, balance="uncertainty", mini_batch_size=2)
    seen, observe = [], loss.balance.observe
    loss.balance.observe = lambda batch: seen.append(batch) or observe(batch)
    more = {"optim": "sgd", "lr_scheduler_type": "constant", "weight_decay": 0.5, "num_train_epochs": 4}
    more |= {"save_strategy": "no"}
    rates = {"learning_rate_mapping": {"log_variances": 0.5}}
    trainer = train_vipolyqwen(tiny_model, rows, tmp_path, loss=loss, **SETTINGS | more | rates)
    expected = [0.0] * len(loss.balance.components)
    logged = []
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        logged.append([math.exp(-s) for s in expected])
        for k, s in enumerate(expected):
            slopes = [float(b.shares[k]) * (0.5 - math.exp(-s) * float(b.losses[k])) for b in (first, second)]
            expected[k] = s - 0.5 * sum(slopes) / 2
    torch.testing.assert_close(loss.balance.log_variances.detach(), torch.tensor(expected))
    assert len(seen) == 8 and max(map(abs, expected)) > 0.1

    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    for weights, entry in zip(logged, entries, strict=True):  # the weights that the step was taken with
        for name, weight in zip(loss.balance.components, weights, strict=True):
            assert entry.get(f"dle/{name}_weight", weight) == pytest.approx(weight, rel=1e-5)
    assert "dle/ocr_info_nce_weight" in entries[-1] and "dle/instr_info_nce_weight" not in entries[-1]
    with pytest.raises(ValueError, match="UncertaintyWeighting changes with every optimizer step"):
        loss([tiny_model.preprocess(column) for column in TEXTS[:2]], LABELS[:5])  # no keeper any more


def test_the_recipe_makes_all_that_a_strategy_needs(tiny_model, rows, tmp_path):
    settings = SETTINGS | {"max_steps": 2, "save_strategy": "no"}
    trainer = train_vipolyqwen(tiny_model, rows, tmp_path, balance="grad_norm", **settings)
    weights = trainer.loss.balance.task_weights.detach()
    assert float((weights - 1).abs().max()) > 0.01 and float(weights.sum()) == pytest.approx(len(weights))
    assert "GradNorm(alpha=1.5)" in str(trainer.loss)
    with pytest.raises(ValueError, match=r"balance='pc_grad' is for the default loss"):
        train_vipolyqwen(tiny_model, rows, tmp_path / "x", loss=DLELoss(tiny_model), balance="pc_grad", **settings)


def test_the_names_of_the_command_line():
    import inspect

    from st_vi.cli.train import vipolyqwen

    of_option = inspect.signature(vipolyqwen, eval_str=True).parameters["balance"].annotation
    literal, _ = get_args(get_args(of_option)[0])
    assert get_args(literal) == get_args(BalanceName) == tuple(BALANCES)


@pytest.mark.slow
def test_what_the_keeper_does_not_accept(tiny_model, rows, tmp_path):
    def train(loss, keepers, **more):
        settings = SETTINGS | {"save_strategy": "no"} | more
        return SentenceTransformerTrainer(
            tiny_model,
            SentenceTransformerTrainingArguments(str(tmp_path), **settings),
            train_dataset=rows,
            loss=loss,
            data_collator=MixedTaskCollator(tiny_model.preprocess),
            callbacks=[DLEMonitor(loss), *keepers],
        ).train()

    loss = DLELoss(tiny_model, balance="grad_norm")
    with pytest.raises(ValueError, match=r"GradNorm needs a learning rate of its own.*'balance.task_weights': 0.025"):
        train(loss, [LossKeeper(loss)])
    with pytest.raises(ValueError, match="LossKeeper has no loss with a state"):
        train(loss, [LossKeeper(DLELoss(tiny_model))])
    with pytest.raises(ValueError, match=r"GradNorm changes with every optimizer step: .*LossKeeper\(loss\)"):
        train(loss, [])
    train(DLELoss(tiny_model, balance="pc_grad"), [], max_steps=1)  # without a state, it needs none
    with pytest.raises(
        ValueError, match=r"GradNorm cannot be trained here: its balance\.task_weights must be in the optimizer"
    ):
        train(loss, [LossKeeper(DLELoss(tiny_model, balance="grad_norm"))])

    features = [tiny_model.preprocess(column) for column in TEXTS[:2]]
    for kind in (DLELoss, CachedDLELoss):
        wrapped = kind(tiny_model, balance="uncertainty")
        wrapped.balance.start()
        with pytest.raises(ValueError, match="UncertaintyWeighting cannot train in MatryoshkaLoss"):
            MatryoshkaLoss(tiny_model, wrapped, [32, 16])(features, LABELS[:5])
        if kind is DLELoss:
            with pytest.raises(ValueError, match="or AdaptiveLayerLoss, which evaluate a batch once for each"):
                AdaptiveLayerLoss(tiny_model, wrapped)(features, LABELS[:5])
        without = MatryoshkaLoss(tiny_model, kind(tiny_model, balance="equal_gradient_norm"), [32, 16])
        assert torch.stack(list(without(features, LABELS[:5]).values())).isfinite().all()
