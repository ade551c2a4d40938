"""Checks of base models: a trained model must not lose its head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers.util import load_file_path
from transformers.utils import logging

from st_vi.model_files import check_has_model, read_json, read_modules

logger = logging.get_logger(__name__)

# Modules without weights, which a new model replaces.
_PLAIN = {"Transformer", "Pooling", "Normalize", "Dropout"}
ADAPTER = "LoRA adapter"
_OLD_MODES = {  # as models saved before sentence-transformers 6 have them
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def trained_parts(base: str | Path, **hub: Any) -> list[str]:
    """Trained parts of a saved model besides its encoder, which a new model would lose, such as ["Dense"].

    `hub` are further arguments of stock's `load_file_path`, such as `revision`.
    """
    name = str(base)
    check_has_model(name)  # first: the name of a file would be looked up on the Hub
    parts = [ADAPTER] if load_file_path(name, "adapter_config.json", **hub) else []
    if listing := load_file_path(name, "modules.json", **hub):
        types = [module["type"] for module in read_modules(Path(listing))]
        parts += [t.split(".")[-1] for t in types if t.startswith("st_vi.") or t.split(".")[-1] not in _PLAIN]
    return parts


def check_base(
    base: str | Path, builder: str, pooling: str | None, transformer_kwargs: Mapping[str, Any]
) -> str | None:
    """Check that a new model from `base` would lose no trained parts, and warn if the pooling changes.

    Returns the pooling of `base`, if it has one. It is an error if it has several and none is chosen.
    """
    arguments = {**(transformer_kwargs.get("model_kwargs") or {})}
    hub = {name: arguments[name] for name in ("token", "revision", "local_files_only") if name in arguments}
    if "cache_dir" in transformer_kwargs:
        hub["cache_folder"] = transformer_kwargs["cache_dir"]
    if parts := trained_parts(base, **hub):
        whole = "merge it (st_vi.recipes.merge_lora), " if ADAPTER in parts else ""
        raise ValueError(
            f"{base} is a trained model, of which {builder} would drop: {', '.join(parts)}. To continue its training, "
            f"train st_vi.load({str(base)!r}). To start from its encoder only, {whole}save the encoder with "
            f"model[0].save(folder), and pass the folder to {builder}"
        )
    had = _pooling(str(base), hub)
    if not pooling and had and "+" in had:
        raise ValueError(f"the vectors of {base} are pooled in several ways, {had}: choose one with pooling=…")
    if pooling and had and had != pooling:
        logger.warning(f"the vectors of {base} are pooled by {had!r}; {builder} starts with pooling={pooling!r}")
    return had


def _pooling(base: str, hub: Mapping[str, Any]) -> str | None:
    """The pooling mode of a saved model, several joined by "+", or None."""
    if not (listing := load_file_path(base, "modules.json", **hub)):
        return None
    for module in read_modules(Path(listing)):
        if module["type"].endswith(".Pooling"):
            file = load_file_path(base, "config.json", subfolder=module["path"], **hub)
            config = read_json(Path(file)) if file else {}
            modes = config.get("pooling_mode") or [mode for key, mode in _OLD_MODES.items() if config.get(key)]
            return modes if isinstance(modes, str) else "+".join(modes) or None
    return None
