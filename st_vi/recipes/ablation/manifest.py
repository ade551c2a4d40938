"""A record of a study beside its results, so that different studies are never mixed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, Image

from st_vi.files.lines import write_whole
from st_vi.model_files import read_json

if TYPE_CHECKING:
    from st_vi.recipes.ablation.run import Study

_WITHOUT_EFFECT = ("disable_tqdm", "logging_steps", "report_to", "save_strategy", "use_cpu")


def write_manifest(study: Study, path: Path) -> None:
    """Record the study beside its results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(manifest(study), ensure_ascii=False, indent=2) + "\n")


def check_manifest(study: Study, path: Path) -> None:
    """Check that results are of this study.

    Raises:
        ValueError: A setting differs, which is named, or there is no record.
    """
    new = manifest(study)
    if not path.is_file():
        raise ValueError(f"{path.parent} has results, and no {path.name} says of which study. Use another folder")
    old = read_json(path)
    if differing := [name for name in {**old, **new} if old.get(name) != new.get(name)]:
        changes = "; ".join(f"{name}: {old.get(name)} there, {new.get(name)} here" for name in differing)
        raise ValueError(f"{path.parent} has the results of another study ({changes}). Use another folder")


def manifest(study: Study) -> dict[str, Any]:
    """Everything that the results of a study depend on, by name, except variant and seed."""
    settings = {**study.build, **{k: v for k, v in study.arguments.items() if k not in _WITHOUT_EFFECT}}
    made = {
        "base": study.base_name,
        "InfoNCE warm-up": study.warm_up,
        "rate of the vision tower": study.vision_rate,
        **{name: settings[name] for name in sorted(settings)},
    }
    for side, parts in (("training", study.train_rows), ("test", study.test_rows)):
        made |= {f"{side} rows of {kind}": f"{len(rows)} ({_digest(rows)})" for kind, rows in parts.items()}
    return json.loads(json.dumps(made, default=str))


def _digest(rows: Dataset) -> str:
    """A short hash of all values, in which images are hashed by content."""
    for name, feature in rows.features.items():
        plain = type(feature)(Image(decode=False)) if hasattr(feature, "feature") else Image(decode=False)
        if isinstance(getattr(feature, "feature", feature), Image):
            rows = rows.cast_column(name, plain)
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr(sorted((name, _plain(value)) for name, value in row.items())).encode())
    return digest.hexdigest()[:8]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        content = value["bytes"] if value["bytes"] is not None else Path(value["path"]).read_bytes()
        return hashlib.sha256(content).hexdigest()
    return value
