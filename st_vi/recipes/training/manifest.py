"""A record of a training run beside its checkpoints, so that different runs are never mixed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from datasets import IterableDataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator, SequentialEvaluator
from sentence_transformers.base.modules import Module, Transformer
from torch import nn

from st_vi.files.lines import write_whole
from st_vi.identity import processor_state, tokenizer_state
from st_vi.model_files import read_json, read_modules

MANIFEST = "training_run.json"
# Stock arguments that determine the weights. All others may change when a run is resumed.
# fmt: off
ARGUMENTS = (
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "world_size",
    "learning_rate", "learning_rate_mapping", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps",
    "warmup_ratio", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay",
    "max_grad_norm", "seed", "data_seed", "bf16", "fp16", "batch_sampler", "multi_dataset_batch_sampler",
    "dataloader_drop_last", "prompts", "router_mapping", "neftune_noise_alpha",
)
# fmt: on
# Settings of adapters that the shapes of their weights do not show.
_OF_ADAPTERS = ("lora_alpha", "alpha_pattern", "lora_dropout", "use_rslora")
_LENGTH = ("num_train_epochs", "max_steps")
# Files that a training run leaves at the top of its folder.
_LEFT = re.compile(
    r"modules\.json|config(_\w+)?\.json|sentence_\w+_config\.json|generation_config\.json|README\.md|"
    r"(model|pytorch_model|adapter_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?|adapter_config\.json|"
    r"tokenizer(_config)?\.(json|model)|vocab\.(json|txt)|merges\.txt|bpe\.codes|(sentencepiece(\.bpe)?|spiece|spm)\.model|"
    r"added_tokens\.json|special_tokens_map\.json|"
    r"\w*processor_config\.json|chat_template\.\w+|training_args\.bin|trainer_state\.json|" + re.escape(MANIFEST)
)


def describe(
    model: SentenceTransformer,
    rows: Any,
    arguments: SentenceTransformerTrainingArguments,
    loss: Any,
    evaluators: Sequence[BaseEvaluator],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that determines a run, as plain JSON values by name; of a value with an "identity", that is compared.

    Rows and the untrained model are identified by content, so a copy in another folder is the same. For speed, only
    some thousand numbers of a weight, the name and size of an image file, and the columns of a stream are used.
    """
    found: dict[str, Any] = {}
    for name, part in (rows if isinstance(rows, Mapping) else {"": rows}).items():
        found[f"rows of {name}" if name else "rows"] = identity_of_rows(part)
    found["base"] = _base(model)
    for number, module in enumerate(model):
        found[f"module {number}"] = type(module).__name__
        if isinstance(module, Module):
            found |= {f"{type(module).__name__} {key}": value for key, value in module.get_config_dict().items()}
        # Those of a base, which is known by its weights, can be replaced.
        if tokenizer := getattr(module, "tokenizer", None):
            found[f"{type(module).__name__} tokenizer"] = _hashed(tokenizer_state(tokenizer))
        if processor := getattr(module, "processor", None):
            found[f"{type(module).__name__} processor"] = _hashed(processor_state(processor))
    found["max_seq_length"] = model.max_seq_length
    for name, adapter in (getattr(model.transformers_model, "peft_config", None) or {}).items():
        found |= {f"adapter {name} {key}": getattr(adapter, key, None) for key in _OF_ADAPTERS}
    found["trainable weights"] = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found |= {name: getattr(arguments, name) for name in ARGUMENTS if hasattr(arguments, name)}
    for number, part in enumerate(_losses(loss)):
        name = f"loss {number + 1}" if number else "loss"
        found[name] = type(part).__name__ if isinstance(part, nn.Module) else getattr(part, "__name__", "")
        settings_of: Any = getattr(part, "get_config_dict", dict) if isinstance(part, nn.Module) else dict
        found |= {f"{name} {key}": value for key, value in settings_of().items()}
    found["evaluators"] = [_evaluator(evaluator) for evaluator in evaluators]
    return as_record({**found, **settings})


def as_record(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as plain JSON values, the same in every process."""
    return json.loads(json.dumps({name: _plain(value) for name, value in settings.items()}))


def check_folder(folder: str | Path, run: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Check, before anything is written, that a run, as `describe` gives it, may use `folder`.

    Raises:
        ValueError: The folder has another run, or the same run and `resume` is not set, or other files that would be
            overwritten or taken for checkpoints. The message says what to do.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder for the model")
    if resume and overwrite:
        raise ValueError("resume and overwrite exclude each other: continue the existing run, or replace it")
    left = left_in(folder)
    kept = [path.name for path in sorted(folder.glob("checkpoint-*")) if path.is_dir() and path not in left]
    if kept:  # the trainer goes by the name, and by the age
        raise ValueError(
            f"{folder} has folders that the trainer would delete as old checkpoints ({', '.join(kept[:4])}): rename "
            "them, or use another folder"
        )
    if resume:
        check_same(folder, run, left)
        return
    if not left:
        return
    shown = ", ".join(path.name for path in left[:4]) + (", …" if len(left) > 4 else "")
    if not any(path.name in (MANIFEST, "modules.json") or path.is_dir() for path in left):  # else from a run
        raise ValueError(f"{folder} has files that training would overwrite ({shown}): use another folder")
    if not overwrite:
        raise ValueError(
            f"{folder} has files of an earlier run ({shown}): use another folder, continue that run with resume=True "
            "(--resume), or replace it with overwrite=True (--overwrite)"
        )
    base = run["base"].get("place")
    if base and Path(base).resolve().is_relative_to(folder.resolve()):
        raise ValueError(
            f"the model was loaded from {base}, which overwriting {folder} would delete: use another folder"
        )


def begin(folder: str | Path, run: Mapping[str, Any], resume: bool, overwrite: bool) -> None:
    """Record the run; with `overwrite`, first delete the files of an earlier run. See `check_folder`."""
    folder = Path(folder)
    if overwrite:
        for path in left_in(folder):
            _delete(path)
    if resume and (folder / MANIFEST).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / MANIFEST, json.dumps(run, indent=1, ensure_ascii=False))


def _delete(path: Path) -> None:
    """Delete what a run left: a checkpoint as a whole, of the folder of a module only files that a run writes."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    elif _is_left_folder(path):
        shutil.rmtree(path)
    else:
        for inside in path.iterdir():
            if inside.is_dir() or _LEFT.fullmatch(inside.name) or inside.name.endswith("config.json"):
                _delete(inside)
        with suppress(OSError):  # it has other files
            path.rmdir()


@contextmanager
def forgotten_if_it_fails(folder: str | Path) -> Iterator[None]:
    """Delete the record of a run that fails in its first steps, so that the folder is free again."""
    try:
        yield
    except Exception:
        if [path.name for path in left_in(Path(folder))] == [MANIFEST]:
            Path(folder, MANIFEST).unlink(missing_ok=True)
        raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The differences between two runs, with names and both values: "seed was 1, now is 2"."""
    return [
        f"{name} was {_shown(before.get(name))}, now is {_shown(now.get(name))}"
        for name in dict.fromkeys((*before, *now))
        if _counts(before.get(name)) != _counts(now.get(name))
    ]


def check_same(folder: Path, run: Mapping[str, Any], left: Sequence[Path]) -> None:
    """Check that the run recorded in `folder` is `run`, or that there is none; `left` are files of an unknown one."""
    if not (folder / MANIFEST).is_file():
        if left:
            raise ValueError(
                f"{folder} cannot be resumed: {MANIFEST} is missing, so its run is unknown. Use another folder, or "
                "overwrite=True (--overwrite) to replace it"
            )
        return
    before = read_json(folder / MANIFEST)
    if not (different := differences(before, run)):
        return
    hint = "Use the same settings, or another folder"
    if any(before.get(name) != run.get(name) for name in _LENGTH):
        hint += (
            " (every step's learning rate depends on the length of the run; to train longer, begin a run in another "
            f"folder with the model in {folder})"
        )
    raise ValueError(f"{folder} has a different run: {'; '.join(different)}. {hint}")


def left_in(folder: Path) -> list[Path]:
    """Files at the top of `folder` that a training run left, or would overwrite."""
    if not folder.is_dir():
        return []
    modules = set()
    if (folder / "modules.json").is_file():
        modules = {Path(module["path"]).parts[0] for module in read_modules(folder / "modules.json") if module["path"]}
    return sorted(
        path
        for path in folder.iterdir()
        if path.name in modules or (_is_left_folder(path) if path.is_dir() else _LEFT.fullmatch(path.name))
    )


def _is_left_folder(path: Path) -> bool:
    """Whether a folder is a checkpoint (complete or not) or has tables of evaluators, judged by its content."""
    inside = [file.name for file in path.iterdir()]
    if re.fullmatch(r"checkpoint-\d+", path.name):
        return not inside or any(_LEFT.fullmatch(name) or name.endswith((".pt", ".pth")) for name in inside)
    return path.name == "eval" and bool(inside) and all(name.endswith("_results.csv") for name in inside)


def identity_of_rows(rows: Any) -> dict[str, Any]:
    """A hash of all values of a dataset, in which image files count by name and size; of a stream, its columns."""
    if isinstance(rows, IterableDataset):
        return {"identity": ["a stream", rows.column_names]}
    digest = hashlib.sha256()
    for table in rows.with_format("arrow").iter(batch_size=1000):
        for row in table.to_pylist():
            digest.update(json.dumps(_plain(row), sort_keys=True).encode(errors="surrogatepass"))
    return {"identity": digest.hexdigest()[:16], "shown": f"{len(rows):,} rows"}


def _base(model: SentenceTransformer) -> dict[str, Any]:
    """Identity of the backbone, equal for all runs that start from the same files."""
    place = getattr(model.transformers_model, "name_or_path", None)
    digest = hashlib.sha256()
    for module in model.modules():
        if isinstance(module, Transformer):
            for name, tensor in sorted(module.state_dict().items()):
                if not re.search(r"lora_|trainable_tokens|(^|\.)pooler\.", name):  # randomly initialised
                    sample = tensor.detach().flatten()[:: max(1, tensor.numel() // 4096)].double().cpu()
                    digest.update(f"{name} {list(tensor.shape)}".encode())
                    digest.update(sample.numpy().tobytes())
    return {"identity": digest.hexdigest()[:16], "shown": str(place or "of no file"), "place": place}


def _hashed(value: Any) -> dict[str, Any]:
    return {"identity": hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]}


def _losses(loss: Any) -> Iterable[Any]:
    """All losses, including nested ones, without their models."""
    if isinstance(loss, Mapping):
        for part in loss.values():
            yield from _losses(part)
    elif not isinstance(loss, nn.Module):
        yield loss
    else:
        yield loss
        for part in loss.children():
            if not isinstance(part, (SentenceTransformer, Module)) and hasattr(part, "get_config_dict"):
                yield from _losses(part)


def _evaluator(evaluator: Any) -> Any:
    if isinstance(evaluator, SequentialEvaluator):
        return [_evaluator(part) for part in evaluator.evaluators]
    data = {name: value for name, value in vars(evaluator).items() if isinstance(value, (list, tuple))}
    digest = hashlib.sha256(json.dumps(_plain(data), sort_keys=True).encode(errors="surrogatepass"))
    return {"identity": [type(evaluator).__name__, digest.hexdigest()[:16]]}


def _plain(value: Any) -> Any:
    """A JSON value that is the same in every process."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        plain = {str(key): _plain(part) for key, part in value.items()}
        path = plain.get("path")
        if plain.keys() == {"bytes", "path"} and isinstance(path, str):  # an image
            plain["path"] = os.path.basename(path)
            if plain["bytes"] is None and os.path.isfile(path):
                plain["bytes"] = os.path.getsize(path)
        return plain
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_plain(part) for part in value]
        return sorted(parts, key=str) if isinstance(value, (set, frozenset)) else parts
    if hasattr(value, "filename") and hasattr(value, "size"):  # an opened image, which is not decoded for this
        return [os.path.basename(str(value.filename)), list(value.size)]
    return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else type(value).__name__


def _counts(value: Any) -> Any:
    return value["identity"] if isinstance(value, dict) and "identity" in value else value


def _shown(value: Any) -> str:
    if not isinstance(value, dict) or "identity" not in value:
        return repr(value)
    named = f"{value['shown']}, " if "shown" in value else ""
    return f"{named}content {value['identity']}"
