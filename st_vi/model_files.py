"""Checks of the files of a saved model before they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules import InputModule, Module, Router
from sentence_transformers.util import import_from_string, load_file_path
from torch import Tensor
from transformers.modeling_utils import load_state_dict

_ADAPTER, _WHOLE = ("adapter_config.json",), ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")


def plain_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of a file by name, memory-mapped.

    The file is one of safetensors, or a pickle of tensors and plain values, whose code is never run.

    Raises:
        ValueError: The file is damaged or would run code; it is named.
    """
    try:
        return load_state_dict(str(file))  # older versions of transformers do not accept a Path
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a truncated pickle can raise any kind
        raise ValueError(
            f"{file} is not a file of plain weights: it is damaged or cut short, or it would run code when unpickled. "
            "Use another copy of it."
        ) from error


def read_json(file: Path) -> Any:
    """The content of a JSON file, which an error names."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # of the text or of its encoding
        raise ValueError(f"{file} is damaged or cut short, it is not JSON: {error}") from error


def read_modules(file: Path) -> list[dict[str, Any]]:
    """The modules that `modules.json` lists.

    Raises:
        ValueError: The file, which is named, is not a list of modules with a name, a path and a type each, or a name is
            used twice, in which case stock would drop a module.
    """
    modules = read_json(file)
    keys = ("name", "path", "type")
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise ValueError(f"{file} must be a list of modules, each with {keys}, got {modules!r:.100}")
    for number, module in enumerate(modules):
        if bad := [key for key in keys if not isinstance(module.get(key), str)]:
            raise ValueError(f"{file}, module {number}: {bad[0]!r} must be a string, got {module.get(bad[0])!r}")
    names = [module["name"] for module in modules]
    if len(set(names)) < len(names):
        raise ValueError(f"{file} gives two modules the same name: {names}")
    return modules


def check_has_model(name: str) -> None:
    """Check that a folder holds a model, if it is a folder: transformers would only miss its tokenizer."""
    folder = Path(name)
    if folder.is_file():
        raise ValueError(f"{name} is a file: give the folder of a model")
    if folder.is_dir() and not any((folder / file).is_file() for file in ("modules.json", "config.json", *_ADAPTER)):
        raise ValueError(f"{name} has no model: neither modules.json nor config.json is in it")


def weight_files(folder: Path) -> Iterator[Path]:
    """The weight files of the model saved in `folder`."""
    for pattern in _WEIGHTS:
        yield from _found(folder, pattern)


def check_files(folder: Path) -> None:
    """Open all weight files and JSON files of the model saved in `folder`.

    This detects truncated files, but not flipped bits in a file of the right length.
    """
    for file in _found(folder, "*.json"):
        read_json(file)
    for file in weight_files(folder):
        plain_weights(file)


def name_and_content(name: str | Path) -> str:
    """The name of a saved model and, of a folder, a hash of its weights and JSON files, as a record of what was used.

    A copy in another folder of that name is the same; of a Hub id, only the id is known.
    """
    folder = Path(name)
    if not folder.is_dir():
        return str(name)
    digest = hashlib.sha256()
    for file in sorted({*_found(folder, "*.json"), *weight_files(folder)}):
        with file.open("rb") as content:
            digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return f"{folder.resolve().name} ({digest.hexdigest()[:8]})"


def base_of_adapter(name: str, **hub: Any) -> str | None:
    """The model to which a saved adapter belongs, as its configuration names it; None if the model is no adapter."""
    file = load_file_path(name, *_ADAPTER, **hub)
    return str(read_json(Path(file)).get("base_model_name_or_path") or "") if file else None


def check_modules(name: str, own: Mapping[str, type[Module]], **hub: Any) -> None:
    """Check that all modules of a model, including those in a `Router`, are known and inside its folder.

    Known are `own` classes, by the import path stored in saved models, and those of sentence-transformers.

    Raises:
        ValueError: `modules.json` is damaged or missing, a class is unknown, a module or its weights are outside the
            model folder, the configuration of a module is missing, or an adapter and a whole model are in one folder.
    """
    listing = load_file_path(name, "modules.json", **hub)
    if not listing and Path(name, "config_sentence_transformers.json").is_file():
        raise ValueError(f"{name} has no modules.json: without it, only the encoder of the model would be loaded")
    if listing:
        modules = read_modules(Path(listing))
        _check(name, [(module["path"], module["type"]) for module in modules], own, hub)


def _check(name: str, modules: Iterable[tuple[str, str]], own: Mapping[str, type[Module]], hub: dict[str, Any]) -> None:
    for path, type_name in modules:
        _check_place(name, path)
        cls = _known_class(name, type_name, own)
        if issubclass(cls, Router):
            _check(name, _routed(name, path, hub), own, hub)
        elif (type_name in own or _needs_config(cls)) and not cls.load_config(name, subfolder=path, **hub):
            raise ValueError(f"{name}: no configuration of the {cls.__name__} in {path!r}")


def _needs_config(cls: type[Module]) -> bool:
    """Whether a stock module cannot be made without its configuration; the encoder can."""
    parameters = signature(cls).parameters.values()
    return not issubclass(cls, InputModule) and any(
        one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters
    )


def _routed(name: str, path: str, hub: dict[str, Any]) -> list[tuple[str, str]]:
    """The modules of a `Router`: paths relative to the model folder, and types."""
    # For a repository, stock rejects paths that lead outside here.
    for config_name in ("router_config.json", "config.json"):  # the latter in older models
        if config := Router.load_config(name, path, config_name, **hub):
            break
    types = config.get("types")
    if not isinstance(types, dict) or not all(isinstance(type_name, str) for type_name in types.values()):
        raise ValueError(f"{name}: the Router in {path!r} must say the 'types' of its modules, got {types!r}")
    if any(Path(part) == Path() for part in types):
        raise ValueError(f"{name}: the Router in {path!r} has itself for a module")
    return [(Path(path, part).as_posix(), type_name) for part, type_name in types.items()]


def _check_place(name: str, path: str) -> None:
    """Check that a module and its weight shards are in the model folder, of one model; single files may be links."""
    folder = Path(name).resolve()
    if not folder.is_dir():
        return
    place = (folder / path).resolve()
    if not place.is_relative_to(folder):
        raise ValueError(f"{name} names the module {path!r}, which lies outside of it, in {place}, and is not read")
    both = [next((file for file in files if (place / file).exists()), "") for files in (_ADAPTER, _WHOLE)]
    if all(both):
        raise ValueError(
            f"{place} has an adapter and a whole model, {both[0]} and {both[1]}: one was saved over the other, and its "
            "vectors would be wrong. Delete adapter_config.json and adapter_model.safetensors if the adapter was "
            f"merged, or config.json and {both[1]} if it was not"
        )
    for index in place.glob("*.index.json"):
        shards = read_json(index).get("weight_map", {}).values()
        if outside := [shard for shard in shards if Path(shard).name != shard]:
            raise ValueError(f"{index} names the weights {outside[0]!r}, outside of its folder: they are not read")


def _known_class(name: str, type_name: str, own: Mapping[str, type[Module]]) -> type[Module]:
    if type_name in own:
        return own[type_name]
    if type_name.startswith("sentence_transformers."):
        try:
            cls = import_from_string(type_name)
        except Exception as error:
            raise ValueError(f"{name} names {type_name!r}, which this sentence-transformers does not have") from error
        if isinstance(cls, type) and issubclass(cls, Module):  # not just any object with a method `load`
            return cls
    raise ValueError(
        f"{name} names the class {type_name!r}, which is neither a module of st_vi nor of sentence-transformers: "
        "st_vi.load does not import it."
    )


def _found(folder: Path, pattern: str) -> list[Path]:
    """Files of the model, without those of checkpoints beside it."""
    # Without modules.json it may be any folder, whose subfolders do not belong to the model.
    files = folder.rglob(pattern) if (folder / "modules.json").is_file() else folder.glob(pattern)
    return sorted(
        file for file in files if not any(part.startswith("checkpoint-") for part in file.relative_to(folder).parts)
    )
