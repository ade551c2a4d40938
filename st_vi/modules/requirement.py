"""Tell whoever loads a saved model that it needs this package."""

from __future__ import annotations

import json
from pathlib import Path


def declare_requirement(module_path: str) -> None:
    """Write ``"requirements": {"st-vi": …}`` into the saved model's `config_sentence_transformers.json`.

    sentence-transformers checks it before it imports any module, and names the missing package with a pip hint.

    Args:
        module_path: The folder in which the module is being saved, inside the model's folder. A module that is
            saved on its own, outside a model, has no such file and declares nothing.
    """
    folder = Path(module_path)
    for config_path in (
        folder / "config_sentence_transformers.json",
        folder.parent / "config_sentence_transformers.json",
    ):
        if config_path.is_file():
            config = json.loads(config_path.read_text(encoding="utf-8"))
            config.setdefault("requirements", {})["st-vi"] = ">=0.1"
            config_path.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
            return
