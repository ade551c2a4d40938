"""The folder of a distillation, with its finished parts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer

from st_vi.encoding import encode_corpus
from st_vi.files.lines import append_line, finished_lines
from st_vi.hub import load
from st_vi.recipes.training.manifest import begin, check_same, left_in

LOG = "log.jsonl"


@dataclass
class Run:
    """The folder of a run, with its finished parts."""

    output: Path
    resume: bool
    seed: int
    progress: Callable[[str], None]
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        self.check()
        self.start = time.time()

    def check(self) -> None:
        """Check that the run may use the folder."""
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"{self.output} is a file: give a folder")
        left = [*left_in(self.output), *self.output.glob(LOG)]
        if left and not self.resume:
            raise ValueError(f"{self.output} has an earlier run: use resume to continue it, or another folder")
        check_same(self.output, self.settings, left)

    def begin(self) -> None:
        """Record the run."""
        begin(self.output, self.settings, resume=self.resume, overwrite=False)

    def log(self, record: Mapping[str, Any]) -> None:
        """Log one line, with the seconds since the start of this call."""
        line = json.dumps({**record, "seconds": round(time.time() - self.start, 1)}, ensure_ascii=False)
        append_line(self.output / LOG, line)

    def done(self, stage: str) -> SentenceTransformer | None:
        """The student after a stage that is already finished."""
        records = map(json.loads, finished_lines(self.output / LOG))
        if any(record["stage"] == stage and record.get("finished") for record in records):
            return load(str(self.folder(stage)), device="cpu")
        return None

    def folder(self, stage: str) -> Path:
        """The folder of a stage, for its checkpoints and its student."""
        return self.output / "stages" / stage

    def taught(
        self, teacher: SentenceTransformer, rows: Mapping[str, Dataset], stage: str, prompt: str
    ) -> dict[str, Dataset]:
        """The rows of each task with vectors of the teacher, computed once and stored on disk.

        Negatives have none: most teachers place a text near its contradiction, and the stage should separate them.
        """
        with_vectors = {}
        for task, made in rows.items():
            parts = [made]
            for column in [name for name in ("anchor", "positive") if name in made.column_names]:
                names = [stage, column] if len(rows) == 1 else [stage, task, column]
                folder = self.output / "teacher" / "-".join(names)
                encode_corpus(teacher, made, folder, column, precision="float16", prompt=prompt)
                vectors = Dataset.from_parquet(
                    f"{escape(str(folder))}/*.parquet", cache_dir=str(self.output / "teacher")
                )
                parts.append(vectors.select_columns("embedding").rename_column("embedding", f"{column}_teacher"))
            with_vectors[task] = concatenate_datasets(parts, axis=1)
        return with_vectors
