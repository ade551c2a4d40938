"""The training function shared by all recipes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from safetensors import SafetensorError
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.data_collator import BaseDataCollator
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from torch import nn
from transformers import PrinterCallback, TrainerCallback, TrainerState
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from st_vi.files.folders import alone_in
from st_vi.losses.own_model import check_own_model, made_with
from st_vi.modules.model_card import with_own_card
from st_vi.recipes.training.arguments import StepsTaken, check_arguments, check_names, count_steps
from st_vi.recipes.training.best_checkpoint import BestMetric, judges_of, schedule
from st_vi.recipes.training.checkpoints import FiniteWeights, last_complete_checkpoint, not_written
from st_vi.recipes.training.interruption import Interruption
from st_vi.recipes.training.manifest import begin, check_folder, describe, forgotten_if_it_fails
from st_vi.recipes.training.progress import Bar
from st_vi.stock.adapters import check_base
from st_vi.stock.messages import without_message
from st_vi.stock.training import divide_once, saving_when_raised, stop_after_last_step

logger = logging.get_logger(__name__)

TrainRows: TypeAlias = Dataset | IterableDataset | DatasetDict | IterableDatasetDict
Loss: TypeAlias = nn.Module | Mapping[str, nn.Module] | Callable[[SentenceTransformer], nn.Module]
Evaluators: TypeAlias = BaseEvaluator | Sequence[BaseEvaluator]

_NO_FIGURES = ("runtime", "_per_second", "loss")
"""Values that the trainer logs in addition to those of the evaluator."""


def train(
    model: SentenceTransformer,
    train_dataset: TrainRows,
    output_dir: str | Path,
    loss: Loss,
    training_arguments: Callable[..., SentenceTransformerTrainingArguments],
    arguments: Mapping[str, Any],
    evaluator: Evaluators | None = None,
    data_collator: BaseDataCollator | None = None,
    resume: bool = False,
    overwrite: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    settings: Mapping[str, Any] | None = None,
) -> SentenceTransformerTrainer:
    """Train `model` in place with the stock trainer, and save it in `output_dir`.

    An evaluator runs whenever a checkpoint is saved, by default after every epoch, and the best checkpoint is restored
    at the end. The last weights are kept if there is no primary metric, as with `GeometryEvaluator`, or if checkpoints
    are not saved at each evaluation.

    The first Ctrl-C saves a checkpoint after the current step and stops; the second stops immediately. So do SIGTERM
    (docker stop, systemd) and SIGHUP (a closed terminal), unless they are ignored.

    Args:
        output_dir: Folder for checkpoints, the trained model, and the record of the run, `training_run.json`.
        loss: A loss for this model, losses by dataset, or a function that creates a loss from a model, as in stock.
        training_arguments: Function of the recipe from output_dir and stock arguments to training arguments.
        arguments: Stock arguments that override those of the recipe and those derived from `evaluator`.
        evaluator: The last one with a primary metric selects the best checkpoint.
        resume: Continue from the last complete checkpoint in `output_dir`, if any; incomplete ones are skipped with a
            warning (`last_complete_checkpoint`). It must belong to the same run (`manifest`).
        overwrite: Delete the files of an earlier run in `output_dir`, and nothing else.
        settings: Further settings that identify the run, such as those of the collator.

    Raises:
        ValueError: Before anything is written: the arguments would train nothing (`check_arguments`) or name no column
            (`check_names`), `loss` is none or belongs to another model, an adapter has no saved base, or `output_dir`
            has files and neither `resume` nor `overwrite` is set, or another run, or another process is at work in it.
        OSError: A checkpoint or the trained model could not be written, for example on a full disk; names the
            checkpoint to resume from.
        KeyboardInterrupt: On Ctrl-C; use `resume` to continue.
    """
    loss = made_with(loss, model)
    if not isinstance(loss, (Mapping, nn.Module)):
        raise ValueError(f"loss must be a loss, losses by dataset or a function that makes one, got {loss!r}")
    check_own_model(loss, model)
    check_base(model.transformers_model)
    if _has_frozen_adapter(model):
        logger.warning('the adapter is frozen, as after loading: call model.set_adapter("default") to train it')
    with_own_card(model)
    judges = judges_of(evaluator)
    args = training_arguments(output_dir, **schedule(judges, arguments) | dict(arguments))
    output_dir = Path(args.output_dir or output_dir)  # where stock saves checkpoints: "~" is the home
    check_arguments(args)
    check_names(args, train_dataset)
    if data_collator is not None:  # to one of our own, the stock trainer does not pass these
        names = ("prompts", "router_mapping")  # of the arguments, where JSON is parsed
        given: Any = {name: value for name in names if (value := getattr(args, name))}
        data_collator = replace(data_collator, **given)
    run = describe(model, train_dataset, args, loss, judges, settings or {})
    now, place = run["base"], str(Path(output_dir).resolve())
    if resume:  # the model of this run may have been trained already
        run["base"] = _begun_with(model).get(place, now)
    check_folder(output_dir, run, resume, overwrite)
    interruption, best = Interruption(), BestMetric(judges)
    bars = [callback for callback in callbacks if isinstance(callback, Bar)]
    others = [callback for callback in callbacks if not isinstance(callback, Bar)]
    trainer = SentenceTransformerTrainer(
        model=model,
        args=args,
        train_dataset=train_dataset,
        loss=loss,  # type: ignore[arg-type]
        evaluator=judges[0] if len(judges) == 1 else SequentialEvaluator(judges) if judges else None,
        data_collator=data_collator,  # type: ignore[arg-type]
        # The last one sees what the others want to save.
        callbacks=[best, *others, interruption, FiniteWeights(), StepsTaken()],
    )
    divide_once(trainer)
    stop_after_last_step(trainer)
    if bars:  # in place of the stock one, which prints the log as well
        trainer.pop_callback(PrinterCallback if args.disable_tqdm else DEFAULT_PROGRESS_CALLBACK)
    if bars and not args.disable_tqdm:
        trainer.add_callback(bars[0])
    states = not (trainer.args.save_only_model or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled)
    trainer.accelerator.wait_for_everyone()  # until every process has checked the folder
    with alone_in(output_dir) if trainer.args.should_save else nullcontext():
        if trainer.args.should_save:  # only in the first process
            check_folder(output_dir, run, resume, overwrite)  # again: another run may have been faster
            begin(output_dir, run, resume, overwrite)
        trainer.accelerator.wait_for_everyone()
        checkpoint = last_complete_checkpoint(output_dir, model, states) if resume else None
        if checkpoint is None and run["base"] != now:
            raise ValueError(
                f"{output_dir} has no checkpoint, and the model has been trained: build it again to start from scratch"
            )
        _begun_with(model)[place] = run["base"]
        if checkpoint is not None:
            best.resumed = TrainerState.load_from_json(str(Path(checkpoint, TRAINER_STATE_NAME)))
            count_steps(args, best.resumed)
        try:
            with (
                forgotten_if_it_fails(output_dir),
                interruption.listening(alone=trainer.args.world_size == 1),
                without_message("transformers.trainer_utils", "mtime"),  # of checkpoints within a second of each other
                without_message("transformers.trainer", "The best checkpoint"),  # is not at its former place
            ):
                trainer.train(resume_from_checkpoint=checkpoint)
                _say_if_nothing_was_learnt(trainer.state.log_history)
                _show_best_figures(model, judges, trainer.state.log_history)
                if trainer.args.should_save:
                    model.save_pretrained(str(output_dir))
        except (OSError, RuntimeError, SafetensorError) as error:
            if (saved := saving_when_raised(error)) is None:
                raise
            step = f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}" if saved == "checkpoint" else ""
            left = last_complete_checkpoint(output_dir, model, states)
            raise not_written(Path(output_dir, step), error, left) from error
    return trainer


def _begun_with(model: SentenceTransformer) -> dict[str, Any]:
    """The initial backbone of the runs of this model object, by output folder."""
    return model.__dict__.setdefault("_st_vi_begun_with", {})


def _say_if_nothing_was_learnt(log: list[dict[str, Any]]) -> None:
    losses = [entry["loss"] for entry in log if "loss" in entry]
    if losses and not any(losses):
        logger.warning(
            "the loss was 0 in every step, so that nothing was learnt: rows that have no negatives of their own need "
            "others in their batch; take larger batches, or more rows"
        )


def _show_best_figures(model: SentenceTransformer, judges: Sequence[BaseEvaluator], log: list[dict[str, Any]]) -> None:
    """If the best checkpoint was restored, put its results into the model card."""
    card = model.model_card_data
    at_best = [entry for entry in log if entry["step"] == card.best_model_step]
    found = {name.removeprefix("eval_"): value for entry in at_best for name, value in entry.items() if "eval_" in name}
    results = card.eval_results_dict if card.eval_results_dict is not None else {}
    for figures in results.values():
        figures.update({name: found[name] for name in figures if name in found})
    if len(judges) == 1 and not results and found and not isinstance(judges[0], SequentialEvaluator):
        results[judges[0]] = {name: value for name, value in found.items() if not name.endswith(_NO_FIGURES)}


def _has_frozen_adapter(model: SentenceTransformer) -> bool:
    if not getattr(model.transformers_model, "peft_config", None):
        return False
    return not any(p.requires_grad for name, p in model.named_parameters() if "lora_" in name)
