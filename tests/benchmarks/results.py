"""Figures that a benchmark keeps, and the options that all of these benchmarks have."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Results(list[dict[str, Any]]):
    """What was measured so far, a line of JSON each, so that an interrupted run goes on where it stopped.

    Args:
        path: The file; it need not exist.
        **settings: What all lines have in common, such as the steps of a training.

    Raises:
        SystemExit: The file has figures of other settings.
    """

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, settings
        super().__init__(map(json.loads, path.read_text(encoding="utf-8").splitlines() if path.exists() else ()))
        for one in self:
            if (others := {name: one.get(name) for name in settings}) != settings:
                raise SystemExit(f"{path} has figures with {others}, not {settings}: give another file as --results")

    def keep(self, *found: dict[str, Any]) -> None:
        """Add figures, to the file as well."""
        lines = [{**one, **self.settings} for one in found]
        self += lines
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)


def options_of(description: str | None, name: str, seeds: Sequence[int] = (0, 1, 2)) -> argparse.ArgumentParser:
    """A parser with the options ``--results``, ``--seeds``, ``--table-only`` and ``--no-docs``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    path = Path(f"outputs/{name}.jsonl")
    parser.add_argument("--results", type=Path, default=path, help="figures so far, which are not measured again")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--table-only", action="store_true", help="measure nothing")
    parser.add_argument("--no-docs", action="store_true", help="print the tables, and leave docs/benchmarks.md alone")
    return parser
