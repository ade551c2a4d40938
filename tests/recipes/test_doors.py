"""`train_viclsr` and `train_vipolyqwen` take what the stock trainer takes."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset, IterableDataset
from PIL import Image
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from sentence_transformers.sentence_transformer import losses as stock
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator, TripletEvaluator

from st_vi import CachedDLELoss, DLELoss, build_viclsr, build_vipolyqwen, train_viclsr, train_vipolyqwen
from st_vi.data import sample_nli
from st_vi.evaluation import GeometryEvaluator, NLISimilarityEvaluator
from st_vi.recipes.training.arguments import check_arguments, common_arguments
from tests.conftest import SENTENCES
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

COLUMNS = {
    "anchor": [f"Hôm nay trời mưa to, ngày {n}." for n in range(16)],
    "positive": [f"Ngày {n} có mưa." for n in range(16)],
    "negative": [f"Ngày {n} trời nắng." for n in range(16)],
}
ROWS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
TASKS = [row | {"task": "text_pair", "score": n / 15} for n, row in enumerate(ROWS)]
SETTINGS = {
    "max_steps": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "save_strategy": "no",
    "logging_steps": 1,
    "disable_tqdm": True,
    "use_cpu": True,
}


def built(base):
    torch.manual_seed(0)
    return build_viclsr(base)


def stream(rows):
    def one_by_one():
        yield from rows

    return IterableDataset.from_generator(one_by_one)


@pytest.fixture(scope="module")
def vectors(tiny_base, tmp_path_factory):
    """Of a model trained on a `Dataset`, by both systems."""
    return {
        train: trained(train, tiny_base, Dataset.from_list(rows), tmp_path_factory.mktemp("expected"))
        for train, rows in ((train_viclsr, ROWS), (train_vipolyqwen, TASKS))
    }


def trained(train, base, rows, folder, **settings):
    model = built(base)
    train(model, rows, folder / "run", **SETTINGS | {"gradient_accumulation_steps": 1} | settings)
    return model.encode(SENTENCES)


@pytest.mark.slow
@pytest.mark.parametrize(("train", "rows"), [(train_viclsr, ROWS), (train_vipolyqwen, TASKS)])
@pytest.mark.parametrize("form", [list, pd.DataFrame])
def test_lists_and_frames_train_alike(tiny_base, tmp_path, vectors, train, rows, form):
    assert (trained(train, tiny_base, form(rows), tmp_path) == vectors[train]).all()


@pytest.mark.slow
@pytest.mark.parametrize(("train", "rows"), [(train_viclsr, ROWS), (train_vipolyqwen, TASKS)])
def test_sets_by_name_and_streams_train(tiny_base, tmp_path, train, rows):
    assert abs(trained(train, tiny_base, {"a": rows[:8], "b": pd.DataFrame(rows[8:])}, tmp_path / "sets")).max() > 0
    in_order = trained(train, tiny_base, stream(rows), tmp_path / "stream")
    typed = Dataset.from_list(rows).to_iterable_dataset()
    assert (trained(train, tiny_base, typed, tmp_path / "typed") == in_order).all()
    with pytest.raises(ValueError, match="max_steps"):
        trained(train, tiny_base, stream(rows), tmp_path / "endless", max_steps=-1)


def test_a_stream_of_images_trains_like_a_list(tmp_path):
    """Accelerate cuts the batches of streams at their number of rows, and an image has more patches."""
    base = save_tiny_qwen2_vl(tmp_path / "base")
    Image.new("RGB", (56, 56), "red").save(tmp_path / "red.png")
    rows = [
        row | {"task": "ocr", "anchor_image": str(tmp_path / "red.png") if n else None} for n, row in enumerate(TASKS)
    ]
    made = []
    for form, name in ((stream, "stream"), (list, "list")):
        torch.manual_seed(0)
        model = build_vipolyqwen(base, 16)
        arguments = {"gradient_accumulation_steps": 1, "per_device_train_batch_size": 16}  # all, in any order
        train_vipolyqwen(model, form(rows), tmp_path / name, **SETTINGS | arguments)
        made.append(model.encode(SENTENCES))
    assert abs(made[0] - made[1]).max() < 1e-4


def test_a_stream_that_never_makes_a_step_is_an_error(tiny_base, tmp_path):
    """Two batches of eight rows each, of which three would make a step; the stock trainer goes on forever."""
    settings = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3}
    with pytest.raises(ValueError, match="fewer batches than gradient_accumulation_steps, 3"):
        trained(train_vipolyqwen, tiny_base, stream(TASKS), tmp_path / "stream", **settings)
    trained(train_vipolyqwen, tiny_base, TASKS, tmp_path / "list", **settings)


def test_a_loss_of_nothing_is_said(tiny_base, tmp_path, caplog):
    pairs = [{"anchor": row["anchor"], "positive": row["positive"]} for row in ROWS]
    trained(train_viclsr, tiny_base, pairs, tmp_path / "pairs", per_device_train_batch_size=2)
    assert "nothing was learnt" not in caplog.text
    trained(train_viclsr, tiny_base, pairs, tmp_path / "alone", per_device_train_batch_size=1)
    assert "the loss was 0 in every step, so that nothing was learnt" in caplog.text


@pytest.mark.parametrize(
    ("train", "rows", "message"),
    [
        (train_viclsr, [*ROWS[:5], ROWS[5] | {"positive": ""}], "column 'positive', row 5: expected non-empty text"),
        (train_viclsr, [ROWS[0] | {"negative": "Ngày 0 có mưa."}], "column 'negative', row 0: the negative equals"),
        (train_vipolyqwen, [*TASKS[:3], TASKS[3] | {"task": "không"}], "column 'task', row 3"),
        (train_vipolyqwen, [*TASKS[:3], TASKS[3] | {"score": 7.0}], "column 'score', row 3"),
    ],
)
def test_a_bad_row_of_a_stream_is_named_when_it_comes(tiny_base, tmp_path, train, rows, message):
    with pytest.raises(ValueError, match=message):
        trained(train, tiny_base, stream(rows), tmp_path)


@pytest.mark.slow
def test_a_stream_trains_on_columns_by_name(tiny_base, tmp_path, caplog):
    rows = [{"id": 7, "negative": r["negative"], "positive": r["positive"], "anchor": r["anchor"]} for r in ROWS]
    expected = trained(train_viclsr, tiny_base, stream(ROWS), tmp_path / "a")
    with caplog.at_level(logging.WARNING):
        assert (trained(train_viclsr, tiny_base, stream(rows), tmp_path / "b") == expected).all()
    assert "columns that are not trained on: id" in caplog.text


def nli(name=""):
    rows = sample_nli("test").select(range(60))
    return NLISimilarityEvaluator(rows["premise"], rows["hypothesis"], rows["label"], name=name)


class Liked(BaseEvaluator):
    """Likes one step best, and says what its primary metric is when stock's do: on the first call."""

    def __init__(self, best, low_is_good=False):
        super().__init__()
        self.best, self.weights = best, None
        self.greater_is_better = not low_is_good

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        self.primary_metric = "liked"
        if steps == self.best:
            self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        return {"other": 0.5, "liked": float((steps == self.best) == self.greater_is_better)}


STEPWISE = {"save_strategy": "steps", "save_steps": 1}


@pytest.mark.parametrize(
    "evaluators",
    [
        lambda liked: liked,
        lambda liked: [liked],
        lambda liked: [nli(), liked],
        lambda liked: (liked, GeometryEvaluator(SENTENCES)),  # the last one with a primary metric
        lambda liked: SequentialEvaluator([nli(), liked]),
        lambda liked: SequentialEvaluator([liked, GeometryEvaluator(SENTENCES)]),
        lambda liked: SequentialEvaluator([liked, nli()], main_score_function=lambda scores: scores[0]),
    ],
)
def test_the_best_checkpoint_comes_back(tiny_base, tmp_path, evaluators):
    liked, model = Liked(best=2), built(tiny_base)
    trainer = train_viclsr(model, ROWS, tmp_path, evaluator=evaluators(liked), **SETTINGS | STEPWISE)
    assert trainer.state.best_global_step == 2
    assert all(torch.equal(value, liked.weights[name]) for name, value in model.state_dict().items())


def test_the_best_checkpoint_of_a_run_in_another_folder(tiny_base, tmp_path, monkeypatch, caplog):
    """Moved after its last checkpoint; in its place there is another run by now."""
    out, moved, liked = tmp_path / "out", tmp_path / "moved", Liked(best=2)
    settings = SETTINGS | STEPWISE | {"evaluator": liked}
    train_viclsr(built(tiny_base), ROWS, out, **settings)
    shutil.move(out, moved)
    for name in ("model.safetensors", "modules.json"):
        (moved / name).unlink()
    shutil.copytree(moved / "checkpoint-4", out / "checkpoint-2")
    model = built(tiny_base)
    trainer = train_viclsr(model, ROWS, moved, resume=True, **settings)
    assert trainer.state.best_model_checkpoint == str(moved / "checkpoint-2")
    assert all(torch.equal(value, liked.weights[name]) for name, value in model.state_dict().items())
    shutil.rmtree(moved / "checkpoint-2")
    shutil.rmtree(moved / "checkpoint-4")
    shutil.move(out / "checkpoint-2", moved / "checkpoint-4")
    caplog.clear()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    trainer = train_viclsr(built(tiny_base), ROWS, moved, resume=True, **settings)
    assert trainer.state.best_model_checkpoint is None
    assert "does not exist anymore" not in caplog.text  # as stock says of the former place
    assert "the best checkpoint so far" in caplog.text and "the best of the rest is kept" in caplog.text


def test_of_an_evaluator_where_less_is_better_the_least(tiny_base, tmp_path):
    liked, model = Liked(best=3, low_is_good=True), built(tiny_base)
    assert train_viclsr(model, ROWS, tmp_path, evaluator=liked, **SETTINGS | STEPWISE).state.best_global_step == 3


@pytest.mark.slow
def test_stock_evaluators_pick_the_best_as_they_say(tiny_base, tmp_path):
    evaluator = TripletEvaluator(*(COLUMNS[name][:8] for name in COLUMNS), name="dev")
    trainer = train_viclsr(built(tiny_base), ROWS, tmp_path, evaluator=evaluator, **SETTINGS | STEPWISE)
    assert trainer.args.metric_for_best_model == "eval_dev_cosine_accuracy"
    assert trainer.state.best_model_checkpoint is not None


@pytest.mark.slow
def test_an_evaluator_that_returns_a_number(tiny_base, tmp_path):
    class Number(BaseEvaluator):
        def __call__(self, model, output_path=None, epoch=-1, steps=-1):
            return float(steps == 2)

    trainer = train_viclsr(built(tiny_base), ROWS, tmp_path, evaluator=Number(), **SETTINGS | STEPWISE)
    assert trainer.state.best_global_step == 2


def evaluations(trainer):
    return [entry["step"] for entry in trainer.state.log_history if "eval_liked" in entry]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "steps", "checkpoints", "best"),
    [
        ({"save_strategy": "no"}, [4], [], None),
        ({"save_strategy": "steps", "save_steps": 2}, [2, 4], [2, 4], 2),
        ({"eval_strategy": "steps", "eval_steps": 2}, [2, 4], [2, 4], 2),
        ({"save_strategy": "steps", "save_steps": 2, "eval_steps": 1}, [1, 2, 3, 4], [2, 4], 2),
        ({"eval_strategy": "no"}, [], [4], None),
        ({"save_strategy": "steps", "save_steps": 3, "eval_strategy": "epoch"}, [4], [3, 4], None),
        ({"save_strategy": "epoch", "eval_strategy": "steps", "eval_steps": 2}, [2, 4], [4], None),
        ({"save_strategy": "steps", "save_steps": 1, "eval_steps": 2}, [2, 4], [1, 2, 3, 4], None),
        ({"save_strategy": "best", "eval_strategy": "steps", "eval_steps": 1}, [1, 2, 3, 4], [1, 2], 2),
        ({"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": False}, [2, 4], [2, 4], 2),
    ],
)
def test_every_way_to_save_and_evaluate(tiny_base, tmp_path, settings, steps, checkpoints, best):
    arguments = {key: value for key, value in SETTINGS.items() if key != "save_strategy"} | {"save_total_limit": None}
    liked = Liked(best=2)
    trainer = train_viclsr(built(tiny_base), ROWS, tmp_path, evaluator=liked, **arguments | settings)
    assert evaluations(trainer) == steps
    assert sorted(int(path.name.split("-")[1]) for path in tmp_path.glob("checkpoint-*")) == checkpoints
    assert (trainer.state.best_global_step if trainer.state.best_model_checkpoint else None) == best
    assert (tmp_path / "model.safetensors").is_file()


@pytest.mark.slow
def test_stock_losses_train(tiny_base, tmp_path):
    model = built(tiny_base)
    losses = {
        "one": stock.MultipleNegativesRankingLoss(model),
        "made": stock.MultipleNegativesRankingLoss,
        "wrapped": stock.MatryoshkaLoss(model, stock.MultipleNegativesRankingLoss(model), [32, 16]),
    }
    for name, loss in losses.items():
        before = model.encode(SENTENCES)
        trainer = train_viclsr(model, ROWS, tmp_path / name, loss=loss, **SETTINGS)
        assert math.isfinite(trainer.state.log_history[0]["loss"]) and abs(model.encode(SENTENCES) - before).max() > 0
    losses = {"a": stock.MultipleNegativesRankingLoss(model), "b": stock.TripletLoss(model)}
    train_viclsr(model, {"a": ROWS[:8], "b": ROWS[8:]}, tmp_path / "several", loss=losses, **SETTINGS)


@pytest.mark.slow
def test_a_function_makes_the_loss_of_tasks(tiny_base, tmp_path, vectors):
    for loss in (DLELoss, lambda model: DLELoss(model)):
        found = trained(train_vipolyqwen, tiny_base, Dataset.from_list(TASKS), tmp_path / repr(loss)[:9], loss=loss)
        assert (found == vectors[train_vipolyqwen]).all()
    with pytest.raises(ValueError, match="loss must be a loss"):
        train_viclsr(built(tiny_base), ROWS, tmp_path / "none", loss=lambda model: None, **SETTINGS)


@pytest.mark.slow
def test_stock_losses_of_mixed_tasks_get_scores_or_no_labels(tiny_base, tmp_path):
    model, seen = built(tiny_base), []

    class Watch(stock.CoSENTLoss):
        def forward(self, sentence_features, labels):
            seen.append(labels)
            return super().forward(sentence_features, labels)

    pairs = [{key: row[key] for key in ("anchor", "positive", "task", "score")} for row in TASKS]
    settings = SETTINGS | {"gradient_accumulation_steps": 1}
    train_vipolyqwen(model, pairs, tmp_path / "scores", loss=Watch(model), **settings)
    known = {round(n / 15, 4) for n in range(16)}
    assert all(labels.shape == (4,) for labels in seen)
    assert {round(value, 4) for labels in seen for value in labels.tolist()} <= known
    unscored = [{key: row[key] for key in ("anchor", "positive")} | {"task": "instr"} for row in TASKS]
    for name, loss in (
        ("none", stock.MultipleNegativesRankingLoss(model)),
        ("inside", stock.MatryoshkaLoss(model, CachedDLELoss(model), [32, 16])),
    ):
        trainer = train_vipolyqwen(model, unscored, tmp_path / name, loss=loss, **settings)
        assert math.isfinite(trainer.state.log_history[0]["loss"])
    with pytest.raises(ValueError, match="info_nce_warm_up"):
        loss = stock.MultipleNegativesRankingLoss(model)
        train_vipolyqwen(model, unscored, tmp_path / "warm", loss=loss, info_nce_warm_up=0.5, **settings)


def test_one_dataset_with_a_stock_loss_and_one_with_that_of_tasks(tiny_base, tmp_path):
    model, seen = built(tiny_base), {"tasks": [], "scores": []}

    class WatchTasks(DLELoss):
        def forward(self, sentence_features, labels):
            seen["tasks"].append(labels)
            return super().forward(sentence_features, labels)

    class WatchScores(stock.CoSENTLoss):
        def forward(self, sentence_features, labels):
            seen["scores"].append(labels)
            return super().forward(sentence_features, labels)

    pairs = [{key: row[key] for key in ("anchor", "positive", "task", "score")} for row in TASKS]
    losses, rows = {"tasks": WatchTasks(model), "scores": WatchScores(model)}, {"tasks": pairs[:8], "scores": pairs[8:]}
    settings = SETTINGS | {"gradient_accumulation_steps": 1, "multi_dataset_batch_sampler": "round_robin"}
    train_vipolyqwen(model, rows, tmp_path / "both", loss=losses, **settings)
    assert [labels.shape for labels in seen["tasks"]] == [(4, 2)] * 2
    assert [labels.shape for labels in seen["scores"]] == [(4,)] * 2
    assert sorted(round(15 * value) for labels in seen["scores"] for value in labels.tolist()) == [*range(8, 16)]


@pytest.mark.slow
def test_a_figure_that_is_no_number_is_said(tiny_base, tmp_path, caplog):
    """At such a learning rate all weights are finite, and all vectors the same."""
    pairs = [COLUMNS[name][:8] for name in ("anchor", "positive")]
    evaluator = EmbeddingSimilarityEvaluator(*pairs, [n / 8 for n in range(8)], show_progress_bar=False)
    settings = SETTINGS | STEPWISE | {"learning_rate": 100.0, "lr_scheduler_type": "constant", "warmup_steps": 0}
    train_viclsr(built(tiny_base), ROWS, tmp_path, evaluator=[nli(), evaluator], **settings)
    assert "eval_spearman_cosine is NaN after step 1" in caplog.text and "lower learning rate than 100" in caplog.text


def test_reports_go_where_stock_sends_them(tiny_base, tmp_path):
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    train_viclsr(built(tiny_base), ROWS, tmp_path, report_to="tensorboard", **SETTINGS)
    assert list(Path(tmp_path).rglob("events.out.tfevents*"))


@pytest.mark.parametrize("steps", [0, -2])
def test_no_steps_are_not_all_epochs(steps):
    """The trainer takes them for no limit."""
    with pytest.raises(ValueError, match=f"max_steps must be more than 0, got {steps}"):
        check_arguments(common_arguments("outputs", max_steps=steps))
