"""Checkpoints that a killed run or a full disk left behind: which one a training can go on from."""

from __future__ import annotations

import shutil
from pathlib import Path

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from transformers.trainer_pt_utils import safe_globals
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from st_vi.model_files import check_files, plain_weights, read_modules, weight_files
from st_vi.modules.saved_module import SavedModule

logger = logging.get_logger(__name__)


def last_complete_checkpoint(output_dir: str | Path, model: SentenceTransformer, states: bool = True) -> str | None:
    """The last checkpoint in `output_dir` that a training can go on from.

    Stock takes the last one, and ends with an error if a kill or a full disk came while it was written. Here it is
    skipped, with a warning that says why, and left where it is.

    Args:
        output_dir: Where checkpoints are; it need not exist.
        model: The model that was trained.
        states: As for `check_checkpoint`.

    Returns:
        Its path; None, with a warning, if there are checkpoints and none of them is complete; None if there are none.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi.recipes.training.checkpoints import last_complete_checkpoint
        >>> model = SentenceTransformer(modules=[BoW(["xin", "chào"])])
        >>> last_complete_checkpoint("outputs/not_begun", model) is None
        True
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
        logger.warning(f"no checkpoint in {output_dir} is complete: the training starts anew")
    return None


def check_checkpoint(folder: Path, model: SentenceTransformer, states: bool = True) -> None:
    """See that a checkpoint of `model` has what the trainer needs, and that the files open.

    The trainer writes `trainer_state.json` last, so that a kill leaves a new checkpoint without it; where a folder was
    written over, any file may be cut short. A file that opens is taken for whole.

    Args:
        folder: The checkpoint.
        model: The model that was trained.
        states: Whether optimizer, schedule and random numbers are there, too: not with the stock argument
            `save_only_model`, and elsewhere with DeepSpeed and FSDP.

    Raises:
        ValueError: Something is missing or does not open; it is named.
    """
    needed = ["trainer_state.json", "modules.json"]
    if states:
        needed += ["optimizer.pt", "scheduler.pt", "rng_state*.pth"]  # a process each has random numbers of its own
    for name in needed:
        if not any(folder.glob(name)):
            raise ValueError(f"{name} is missing")
    check_files(folder)
    with safe_globals():  # for NumPy's random state
        for file in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
            plain_weights(file)
    _check_weights(folder, model)


def not_written(folder: Path, error: Exception, left: str | None) -> OSError:
    """The error to raise where `folder` could not be written, with what to do about it.

    Args:
        folder: A checkpoint or the trained model.
        error: What was raised; torch and safetensors do not say what they wrote.
        left: The last complete checkpoint, if there is one.

    Returns:
        It names the folder, the room on its disk in MiB, the cause and the checkpoint.
    """
    free = shutil.disk_usage(folder.parent).free // 2**20
    rest = f"{left} is complete: make room, and go on with resume=True" if left else "make room, and start again"
    return OSError(f"{folder} could not be written completely, {free} MiB are free on its disk ({error}); {rest}")


def _check_weights(folder: Path, model: SentenceTransformer) -> None:
    """Every module that saves weights has some. (Of stock's others, some have parameters and do not save them.)"""
    paths = [module["path"] for module in read_modules(folder / "modules.json")]
    tops = {file.relative_to(folder).parts[0] for file in weight_files(folder)}
    found = {top if top in paths else "" for top in tops}
    for path, module in zip(paths, model, strict=False):
        if isinstance(module, (Transformer, SavedModule)) and path not in found:
            raise ValueError(f"the weights of {type(module).__name__} are missing")
