"""Detection of incomplete checkpoints after a kill or on a full disk, and of weights that are not worth saving."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Module, Transformer
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from st_vi.model_files import check_files, plain_weights, read_modules, weight_files
from st_vi.modules.saved_module import SavedModule

logger = logging.get_logger(__name__)


def last_complete_checkpoint(output_dir: str | Path, model: SentenceTransformer, states: bool = True) -> str | None:
    """The path of the last complete checkpoint in `output_dir`, or None; warns if there are only incomplete ones.

    The stock trainer takes the last checkpoint, and fails if it is incomplete after a kill or on a full disk. Here such
    a checkpoint is skipped with a warning that gives the reason; it is not deleted.
    """
    folders = {
        int(step): folder
        for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (step := folder.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")).isdecimal() and folder.is_dir()
    }
    for number in sorted(folders, reverse=True):
        try:
            check_checkpoint(folders[number], model, states)
        except (ValueError, OSError) as error:
            logger.warning(f"{folders[number]} is not complete and is skipped: {error}")
        else:
            return str(folders[number])
    if folders:
        logger.warning(f"no checkpoint in {output_dir} is complete: training starts from scratch")
    return None


def check_checkpoint(folder: Path, model: SentenceTransformer, states: bool = True) -> None:
    """Check that a checkpoint of `model` has all files that the trainer needs, and that they open.

    The trainer writes `trainer_state.json` last, so a new checkpoint lacks it after a kill. In an overwritten folder,
    any file may be truncated. A file that opens is considered complete.

    The `states` of optimizer, schedule and random numbers are missing with the stock argument `save_only_model`, and
    stored elsewhere with DeepSpeed and FSDP.
    """
    needed = ["trainer_state.json", "modules.json"]
    if states:
        needed += ["optimizer.pt", "scheduler.pt", "rng_state*.pth"]  # one per process
    for name in needed:
        if not any(folder.glob(name)):
            raise ValueError(f"{name} is missing")
    check_files(folder)
    with safe_globals():  # allows NumPy's random state
        for file in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
            plain_weights(file)
    _check_modules(folder, model)


class FiniteWeights(TrainerCallback):
    """Raises `ValueError` where weights with NaN or infinity would be evaluated, saved, or the last of the run.

    The trainer logs such a loss as the mean of the others, so that nothing else shows that training has diverged.
    """

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Check the weights if they are about to be used. The stock callback, which decides on that, comes first."""
        if model is None or not (control.should_save or control.should_evaluate or control.should_training_stop):
            return
        for name, weight in model.named_parameters():
            if weight.requires_grad and not weight.isfinite().all():
                raise ValueError(
                    f"training has diverged: after step {state.global_step}, {name} holds NaN or infinity; start "
                    f"again with a lower learning rate than {args.learning_rate:g}"
                )

    on_epoch_end = on_step_end


def not_written(folder: Path, error: Exception, left: str | None) -> OSError:
    """The error for a folder that could not be written, with the last complete checkpoint that is `left`, if any.

    The original errors of torch and safetensors do not name the file.
    """
    free = shutil.disk_usage(folder.parent).free // 2**20
    rest = (
        f"{left} is complete: make room, and go on with resume=True (--resume)"
        if left
        else "make room, and start again"
    )
    return OSError(f"{folder} could not be written completely, {free} MiB are free on its disk ({error}); {rest}")


def _check_modules(folder: Path, model: SentenceTransformer) -> None:
    """Check that modules have their configuration, and their weights where they save any.

    Some stock modules have parameters but do not save them.
    """
    paths = [module["path"] for module in read_modules(folder / "modules.json")]
    tops = {file.relative_to(folder).parts[0] for file in weight_files(folder)}
    found = {top if top in paths else "" for top in tops}
    for path, module in zip(paths, model, strict=False):
        if isinstance(module, Module) and module.get_config_dict():
            config = Path(path, module.config_file_name)
            if not (folder / config).is_file():
                raise ValueError(f"{config} is missing")
        if isinstance(module, (Transformer, Dense, SavedModule)) and path not in found:
            raise ValueError(f"the weights of {type(module).__name__} are missing")
        for names in _files_of(module) if isinstance(module, Transformer) else ():
            if not any((folder / path / name).is_file() for name in names):
                raise ValueError(f"{Path(path, names[0])} is missing")


def _files_of(encoder: Transformer) -> Iterator[tuple[str, ...]]:
    """The files of an encoder besides its weights, each with the names that it may have.

    Without its vocabulary, a tokenizer may be made that knows hardly any token.
    """
    yield "config.json", "adapter_config.json"
    if encoder.tokenizer is not None:
        named = encoder.tokenizer.vocab_files_names.values() or ["tokenizer_config.json"]  # of bytes, as in ByT5
        yield "tokenizer.json", *named
    if getattr(encoder.processor, "image_processor", None) is not None:
        yield "processor_config.json", "preprocessor_config.json"
