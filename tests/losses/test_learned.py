"""Learned terms in `DLELoss`: trained, cached and not, balanced, kept with checkpoints, and over two processes."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss
from transformers import TrainerState

from st_vi import CachedDLELoss, DLELoss, MixedTaskCollator, Task
from st_vi.data import check_task_rows
from st_vi.data.formats import combine_rows
from st_vi.losses import LossKeeper
from st_vi.losses.balance import BALANCES
from st_vi.recipes import train_vipolyqwen
from st_vi.terms import InfoNCE, SimLAP
from tests.conftest import SENTENCES
from tests.helpers.columns import NAN
from tests.helpers.one_epoch import SETTINGS
from tests.helpers.processes import gloo, on_two
from tests.helpers.words import Stop, Words, columns_of_words

SETTINGS = SETTINGS | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
SETTINGS |= {"num_train_epochs": 6, "save_steps": 3, "warmup_steps": 0, "disable_tqdm": True}


def tasks(size=6):
    """One learned term in each of two tasks, and two in the second."""
    gate = SimLAP(num_classes=3, size=size, temperature=0.5, binary_weight=0.2)
    identical = SimLAP(num_classes=3, size=size, partners="identical", weight=0.7)
    return [Task("topic", "", (InfoNCE(), gate)), Task("kind", "", (identical, gate))]


LEARNED = ["topic_sim_lap", "kind_sim_lap", "kind_sim_lap_2"]
LABELS = torch.tensor([[0, NAN, NAN, 0], [0, NAN, NAN, 1], [0, NAN, NAN, 2], [1, NAN, NAN, 1]])


def labels(*of_rows):
    """Tasks and classes."""
    return torch.tensor([[task, NAN, NAN, one] for task, one in of_rows], dtype=torch.float64)


def test_a_loss_trains_copies():
    given = tasks()
    first, second = DLELoss(None, given), DLELoss(None, given)
    assert list(first.learned) == LEARNED
    assert [name for name, _ in first.named_parameters()] == [f"learned.{name}" for name in LEARNED]
    for loss in (first, copy.deepcopy(first), first.to(torch.float64)):
        terms = {name: term for task in loss.tasks for name, term in task.components.items()}
        assert all(terms[name].parameters is loss.learned[name] for name in LEARNED)
    with torch.no_grad():
        first.learned["topic_sim_lap"] += 1
    assert (second.learned["topic_sim_lap"] == 1).all() and (given[0].terms[1].parameters == 1).all()
    assert first.tasks == second.tasks == tuple(given)
    shown = "SimLAP(weight=0.7, num_classes=3, size=6, temperature=0.1, binary_weight=0.1, partners='identical')"
    assert shown in repr(first) and "tensor" not in repr(first)
    assert shown in first.get_config_dict()["tasks"]["kind"]
    assert not list(DLELoss(None).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("balance", [None, *BALANCES])
@pytest.mark.parametrize("negatives", ["task", "batch"])
def test_cached_equals_uncached(negatives, balance):
    """Values and all gradients over some steps, accumulated over two batches, one without a row of a task."""
    results = []
    for kind, more in (
        (DLELoss, {}),
        (CachedDLELoss, {"mini_batch_size": 3, "max_matrix_bytes": None}),
        (CachedDLELoss, {"mini_batch_size": 3, "max_matrix_bytes": 1}),
    ):
        loss = kind(Words(), tasks(), negatives=negatives, balance=balance, **more).double()
        loss.learned.start()
        if loss.balance is not None:
            loss.balance.start()
        found = []
        for _ in range(3):
            loss.zero_grad()
            for some in (labels((0, 0), (0, 1), (0, 2), (0, 0)), labels((1, 0), (1, 1), (0, 2), (1, 2))):
                values = loss(columns_of_words(), some)
                (torch.stack(list(values.values())).sum() / 2).backward()
                found += values.values()
            found += [p.grad.clone() for p in loss.parameters()]
            with torch.no_grad():
                for parameter in loss.parameters():
                    parameter -= 0.5 * parameter.grad
            if loss.balance is not None:
                loss.balance.step()
        assert all(loss.learned[name].grad.any() for name in LEARNED)
        results.append([value.detach() for value in found])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(theirs, mine, atol=1e-6, rtol=1e-6)


def test_the_gradient_of_a_balanced_loss_is_that_of_its_weighted_sum():
    """For every strategy: of Σ λ_k c_k, with the weights that it had."""
    some = labels((1, 0), (1, 1), (1, 2), (1, 0))
    for name in BALANCES:
        loss = DLELoss(Words(), tasks(), balance=name).double()
        loss.learned.start()
        loss.balance.start()
        torch.stack(list(loss(columns_of_words(), some).values())).sum().backward()
        weights = {name: total / count for name, (total, count) in loss.balance.take_log().items()}
        plain = DLELoss(loss.model, tasks()).double()
        plain.learned.start()
        for key in LEARNED[1:]:
            plain.zero_grad()
            plain(columns_of_words(), some)[key].backward()
            torch.testing.assert_close(loss.learned[key].grad, plain.learned[key].grad * weights[key])


def test_an_evaluation_leaves_no_gradient():
    for kind in (DLELoss, CachedDLELoss):
        loss = kind(Words(), tasks()).double()
        with torch.no_grad():
            values = loss(columns_of_words(), labels((0, 0), (0, 1), (0, 2), (1, 0)))
        assert not any(value.requires_grad for value in values.values())
        assert all(value.grad is None for value in loss.parameters())


def rows():
    halves = [sentence.split(maxsplit=4) for sentence in SENTENCES]
    columns = {"anchor": [" ".join(words[:4]) for words in halves], "positive": [words[4] for words in halves]}
    return Dataset.from_dict(columns | {"class": [0, 1, 2, 0, 1, 2, 0, 1], "task": ["topic", "kind"] * 4})


@pytest.mark.slow
def test_resumed_equals_uninterrupted(tiny_model, tmp_path):
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    results = []
    for kind in (DLELoss, CachedDLELoss):
        for folder, stops in (("whole", [[]]), ("parts", [[Stop()], []])):
            for number, callbacks in enumerate(stops):
                tiny_model.load_state_dict(start)
                loss = kind(tiny_model, tasks(32), negatives="batch", balance="uncertainty")
                trainer = train_vipolyqwen(
                    tiny_model, rows(), tmp_path / kind.__name__ / folder, loss=loss, resume=bool(number),
                    callbacks=callbacks, **SETTINGS | {"save_strategy": "steps" if len(stops) > 1 else "no"},
                )  # fmt: skip
            learned = {name: value.detach().clone() for name, value in loss.named_parameters() if "model" not in name}
            results.append(learned | {name: value.clone() for name, value in tiny_model.state_dict().items()})
    assert (results[0]["learned.topic_sim_lap"] - 1).abs().max() > 0.03
    for first, second in (results[:2], results[2:]):
        assert first.keys() == second.keys()
        for name, value in first.items():
            assert torch.equal(value, second[name]), name
    (entry,) = [entry for entry in trainer.state.log_history if entry.get("step") == 1]
    assert "dle/topic_sim_lap" in entry


def test_the_trainer_takes_its_gradient_without_decay(tiny_model, tmp_path):
    """SGD, a rate of its own, and a strong decay: the gates move by the mean gradient of the two batches of a step."""
    loss = DLELoss(tiny_model, tasks(32))
    more = {"optim": "sgd", "lr_scheduler_type": "constant", "weight_decay": 0.5, "max_steps": 1, "save_strategy": "no"}
    seen = []
    for name, value in loss.learned.items():
        value.register_hook(lambda gradient, name=name: seen.append((name, gradient.clone())))
    train_vipolyqwen(
        tiny_model, rows(), tmp_path, loss=loss, **SETTINGS | more | {"learning_rate_mapping": {"learned": 0.5}}
    )
    assert {name for name, _ in seen} == set(LEARNED)
    for name, value in loss.learned.items():
        total = sum(gradient for of, gradient in seen if of == name)
        torch.testing.assert_close(value.detach(), 1 - 0.5 * total)
    features = [tiny_model.preprocess(SENTENCES[:4]), tiny_model.preprocess(SENTENCES[4:])]
    with pytest.raises(ValueError, match=r"topic_sim_lap has parameters to train: .*LossKeeper\(loss\)"):
        loss(features, labels((0, 0), (0, 1), (0, 2), (1, 0)))  # no keeper any more


def test_what_the_keeper_does_not_accept(tiny_model, tmp_path):
    loss = DLELoss(tiny_model, tasks(32))
    arguments = SentenceTransformerTrainingArguments(str(tmp_path), **SETTINGS | {"save_strategy": "no"})
    trainer = SentenceTransformerTrainer(
        tiny_model, arguments, train_dataset=rows(), loss=loss,
        data_collator=MixedTaskCollator(tiny_model.preprocess, tasks=loss.tasks), callbacks=[LossKeeper(loss)],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"topic_sim_lap needs a learning rate .*'learned.topic_sim_lap': 0.025"):
        trainer.train()
    state = loss.learned.state()
    with pytest.raises(ValueError, match="the checkpoint has parameters of"):
        DLELoss(None, tasks(32)[:1]).learned.restore(state)
    with pytest.raises(ValueError, match=r"topic_sim_lap has parameters \(6, 6\), those of the checkpoint are \(6, 32"):
        DLELoss(None, tasks(6)).learned.restore(state)
    wrapped = CachedDLELoss(tiny_model, tasks(32))
    wrapped.learned.start()
    features = [tiny_model.preprocess(SENTENCES[:4]), tiny_model.preprocess(SENTENCES[4:])]
    some = labels((0, 0), (0, 1), (0, 2), (1, 0))
    for dimensions in (-1, 1):  # per step
        with pytest.raises(ValueError, match="topic_sim_lap cannot train in MatryoshkaLoss"):
            MatryoshkaLoss(tiny_model, wrapped, [32, 16], n_dims_per_step=dimensions)(features, some)
    uncached = DLELoss(tiny_model, tasks(32))
    uncached.learned.start()
    sum(MatryoshkaLoss(tiny_model, uncached, [32, 16])(features, some).values()).backward()
    assert uncached.learned["topic_sim_lap"].grad[:, :16].any() and uncached.learned["topic_sim_lap"].grad[:, 16:].any()


def test_a_state_goes_through_json():
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        loss, other = (DLELoss(None, tasks()).to(dtype) for _ in "ab")
        for value in loss.learned.values():
            value.data.normal_()
        keepers = [LossKeeper(one) for one in (loss, other)]
        saved = json.loads(json.dumps(keepers[0].state()))
        keepers[1]._restore(TrainerState(stateful_callbacks={"LossKeeper": saved}))
        for name, value in loss.learned.items():
            assert torch.equal(other.learned[name], value)


def test_classes_of_rows():
    collator = MixedTaskCollator(lambda inputs: {}, tasks=tasks())
    given = collator.labels([*rows().to_list()[:2], {"anchor": "a", "positive": "b", "task": "kind", "class": None}])
    torch.testing.assert_close(given, labels((0, 0), (1, 1), (1, NAN)).float(), equal_nan=True)
    with_teacher = [row | {"teacher_scores": [0.5], "anchor_teacher": [1.0, 2.0]} for row in rows().to_list()[:2]]
    expected = torch.tensor([[0, NAN, 0.5, 1, 2, NAN, NAN, 0], [1, NAN, 0.5, 1, 2, NAN, NAN, 1]])
    torch.testing.assert_close(collator.labels(with_teacher), expected, equal_nan=True)
    assert MixedTaskCollator(lambda inputs: {}, tasks=[Task("topic", "", (InfoNCE(),))]).labels(
        [{"anchor": "a", "positive": "b", "task": "topic", "class": "thể thao"}]
    ).shape == (1, 2)
    for value in (-1, 0.5, "thể thao", float("inf")):
        with pytest.raises(ValueError, match="'class', row 0"):
            collator.labels([{"anchor": "a", "positive": "b", "task": "kind", "class": value}])
    check_task_rows(rows(), tasks())
    joint = combine_rows(rows().select([1]), rows().select([0]).remove_columns("class"))
    assert joint["class"][0] == 1 and joint["class"][1] != joint["class"][1]
    with pytest.raises(ValueError, match="column 'class', row 0: expected the number of a class"):
        check_task_rows(rows().remove_columns("class"), tasks())


def test_labels_with_classes():
    loss = DLELoss(None, tasks())
    vectors = [torch.randn(2, 6) for _ in "ab"]
    with torch.no_grad():
        for bad in (-1.0, 0.5, float("inf")):
            with pytest.raises(ValueError, match="classes of labels must be whole numbers"):
                loss.compute_loss_from_embeddings(vectors, labels((0, 0), (0, bad)))
        with pytest.raises(ValueError, match="this term needs the class"):
            loss.compute_loss_from_embeddings(vectors, torch.tensor([[0, NAN], [0, NAN]]))
        with pytest.raises(ValueError, match="DLELoss needs labels"):
            loss.compute_loss_from_embeddings([*vectors, vectors[0]], torch.zeros(2, 6))  # 4, 5, 7, 8, 10, …


def run_rank(rank, folder, gather):
    with gloo(rank, folder):
        vectors, given = torch.load(f"{folder}/batch")
        loss = DLELoss(None, tasks(4), gather_across_devices=gather).double()
        loss.learned.start()
        half = slice(4 * rank, 4 * rank + 4)
        values = loss.compute_loss_from_embeddings(
            [column[half].clone().requires_grad_() for column in vectors], given[half]
        )
        sum(values.values()).backward()
        LossKeeper(loss).on_pre_optimizer_step(None, None, None)
        torch.save({name: value.grad for name, value in loss.learned.items()}, f"{folder}/rank{rank}")


@pytest.mark.slow
@pytest.mark.parametrize("gather", [True, False])
def test_two_processes_have_the_mean_gradient(gather, tmp_path):
    """One has no row of the second task. Gathered, it is the gradient of the joint batch."""
    vectors = [torch.randn(8, 4, dtype=torch.float64) for _ in "ab"]
    given = labels((0, 0), (0, 1), (0, 2), (0, 0), (1, 0), (1, 1), (0, 1), (1, 2))
    torch.save((vectors, given), tmp_path / "batch")
    on_two(run_rank, str(tmp_path), gather)
    expected = dict.fromkeys(LEARNED, 0.0)
    for half in [slice(8)] if gather else [slice(4), slice(4, 8)]:
        loss = DLELoss(None, tasks(4)).double()
        loss.learned.start()
        columns = [column[half].clone().requires_grad_() for column in vectors]
        sum(loss.compute_loss_from_embeddings(columns, given[half]).values()).backward()
        for name, value in loss.learned.items():
            expected[name] = expected[name] + (0 if value.grad is None else value.grad) / (1 if gather else 2)
    for rank in range(2):
        actual = torch.load(tmp_path / f"rank{rank}")
        for name in LEARNED:
            torch.testing.assert_close(actual[name], expected[name])
