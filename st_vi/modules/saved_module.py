"""Saving and loading of modules with weights of their own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Self

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Module

from st_vi.modules.model_card import with_own_card


class SavedModule(Module):
    """A module that consists of its `config_keys` and weights."""

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write `config.json` and the weights to `output_path`."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)
        declare_requirement(output_path)

    def on_model_ready(self, model: SentenceTransformer) -> None:  # type: ignore[override]
        """Use a model card that says how to load the model."""
        with_own_card(model)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> Self:  # type: ignore[override]
        """Read what `save` wrote, from a folder or from the Hub."""
        names = ("token", "cache_folder", "revision", "local_files_only")
        hub = {"subfolder": subfolder} | {name: kwargs[name] for name in names if name in kwargs}
        module = cls(**cls.load_config(model_name_or_path, **hub))
        return cls.load_torch_weights(model_name_or_path, model=module, **hub)


def declare_requirement(module_path: str) -> None:
    """Write ``"requirements": {"st-vi": …}`` into the saved model's `config_sentence_transformers.json`.

    sentence-transformers checks it before importing any module, and names the missing package with a pip hint. Several
    processes may save to the same folder: with transformers 5.23, the trainer saves in all of them.

    Args:
        module_path: Folder of the module, inside the model's folder. A module saved on its own has no such file, and
            nothing is declared.
    """
    folder = Path(module_path)
    for parent in (folder, folder.parent):  # the first module is saved in the model's folder itself
        config_path = parent / "config_sentence_transformers.json"
        if config_path.is_file():
            try:
                config = json.loads(config_path.read_text(encoding="utf-8"))
            except json.JSONDecodeError:  # another process is writing it, and will declare the requirement itself
                return
            config.setdefault("requirements", {})["st-vi"] = ">=0.1"
            finished = config_path.with_name(f"{config_path.name}.{os.getpid()}")
            finished.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
            finished.replace(config_path)  # atomic
            return
