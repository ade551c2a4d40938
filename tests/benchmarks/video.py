"""Clips and captions that need the order of frames: what poly-mini learns of time, and shuffled frames as a control.

    python -m tests.benchmarks.video

poly-mini, which has never seen a video, goes on with generated clips and, so that it does not forget images, with drawn
scenes. Then every caption ranks 200 clips of the test side, of which half are the reverse of the other half, and every
clip their captions; once with the frames in order and once with the frames of every clip shuffled. Stopped, the command
goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from scipy.stats import binomtest
from sentence_transformers import SentenceTransformer
from transformers import TrainerCallback

from st_vi.data.generated.clips import CHANGES, clip_rows
from st_vi.data.generated.rows import generated_rows
from st_vi.hub import load
from st_vi.losses import DLELoss
from st_vi.recipes import train_vipolyqwen, vipolyqwen_evaluator
from st_vi.recipes.ablation.tables import markdown
from st_vi.tasks import VIDEO_TASK, VIPOLYQWEN_TASKS
from tests.benchmarks.tables import update_docs

TASKS = (*VIPOLYQWEN_TASKS, VIDEO_TASK)
CLIPS = {"move": (378, 378), "size": (574,), "colour": (756,)}
"""Rows of each kind, with other wordings each time. There are 378 moves on the training side."""
SCENES = 300
TEST = 200
STEPS, EVERY = 1000, 200
TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "learning_rate": 5e-4,
    "learning_rate_mapping": {},
    "max_steps": STEPS,
    "save_strategy": "steps",
    "save_steps": EVERY,
    "save_total_limit": 1,
    "logging_steps": 20,
    "bf16": True,
    "use_cpu": True,
    "seed": 0,
}
SCENE_KINDS = ["text_to_image", "image_to_text"]


def training_rows() -> DatasetDict:
    """Clips with their reverse as a hard negative, and scenes, each in both directions."""
    rows = generated_rows("train", SCENES, 1, SCENE_KINDS)
    directions: Any = ("text_to_video", "video_to_text")
    for seed, direction in enumerate(directions):
        parts = [
            clip_rows("train", count, 10 * number + seed, direction, changes=[change], negatives=True)
            for change in CHANGES
            for number, count in enumerate(CLIPS[change])
        ]
        rows[direction] = concatenate_datasets(parts)
    return rows


def with_prefix() -> SentenceTransformer:
    """poly-mini with the prefix and the prompt of the task, and with its vision tower as it is."""
    model = load("poly-mini", device="cpu")
    model[0].get_submodule("model.visual").requires_grad_(False)
    backbone: Any = model[0]
    backbone.add_prefixes([VIDEO_TASK.prefix])
    model.prompts.update(backbone.default_prompts())
    return model


class Ranks:
    """Cosines of all captions (rows) with all clips of the test side.

    Args:
        model: With the prompt "video".
        rows: Captions as anchors, clips as positives; every clip is followed by its reverse.
    """

    def __init__(self, model: SentenceTransformer, rows: Dataset) -> None:
        settings: Any = {"batch_size": 32, "show_progress_bar": False, "normalize_embeddings": True}
        clips = [{"video": frames} for frames in rows["positive_video"]]
        captions = rows["anchor"][:]
        # The query has the prefix, as in training.
        prompted = [model.encode(side, prompt_name="video", **settings) for side in (captions, clips)]
        plain = [model.encode(side, **settings) for side in (captions, clips)]
        self.to_clip = prompted[0] @ plain[1].T
        self.to_caption = prompted[1] @ plain[0].T

    def of(self, cosines: np.ndarray) -> np.ndarray:
        """The rank of the right answer of every query; ties count against the model."""
        right = np.diag(cosines)[:, None]
        return (cosines >= right).sum(axis=1)

    def beats_reverse(self, cosines: np.ndarray) -> np.ndarray:
        """Whether the right answer is nearer than that of the reversed clip."""
        number = np.arange(len(cosines))
        return cosines[number, number] > cosines[number, number ^ 1]


def share(hits: np.ndarray) -> str:
    """In percent, with the 95 % interval of Wilson."""
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{100 * hits.mean():.1f} [{100 * ends.low:.0f}, {100 * ends.high:.0f}]"


class Curve(TrainerCallback):
    """Recall@1 of caption → clip in the course of the training; kept in a file, because a run may be resumed."""

    def __init__(self, model: SentenceTransformer, rows: Dataset, path: Path) -> None:
        self.model, self.rows, self.path = model, rows, path

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measure at every checkpoint."""
        if state.global_step % EVERY:
            return
        self.model.eval()
        ranks = Ranks(self.model, self.rows)
        found = {"step": state.global_step, "recall@1": 100 * float((ranks.of(ranks.to_clip) <= 1).mean())}
        self.model.train()
        print(found, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def figures(ranks: Ranks) -> dict[str, list[str]]:
    """For each direction: recall@1, recall@5, nearer than the reverse."""
    return {
        name: [share(ranks.of(cosines) <= 1), share(ranks.of(cosines) <= 5), share(ranks.beats_reverse(cosines))]
        for name, cosines in (("caption → clip", ranks.to_clip), ("clip → caption", ranks.to_caption))
    }


def table(before: Ranks, ordered: Ranks, shuffled: Ranks) -> str:
    lines = []
    for label, ranks in (
        ("frames in order", ordered),
        ("frames shuffled", shuffled),
        ("in order, before the training", before),
    ):
        lines += [[f"{direction}, {label}", *values] for direction, values in figures(ranks).items()]
    lines.sort(key=lambda line: line[0].partition(",")[0])
    header = [f"query → answer among {TEST}", "recall@1", "recall@5", "nearer than the reverse"]
    return markdown(header, lines)


def changes_line(rows: Dataset, ordered: Ranks, shuffled: Ranks) -> str:
    """Recall@1 of caption → clip by the kind of change; they come in turn, pair by pair."""
    kind = np.array([CHANGES[number // 2 % len(CHANGES)] for number in range(len(rows))])
    names = {"move": "moves", "size": "grows or shrinks", "colour": "changes colour"}
    shown = []
    for change, name in names.items():
        hits = [(ranks.of(ranks.to_clip) <= 1)[kind == change] for ranks in (ordered, shuffled)]
        shown.append(f"{name} {share(hits[0])}, shuffled {share(hits[1])}")
    return f"Recall@1, caption → clip, by what the shape does: {'; '.join(shown)}."


def scenes_line(before: dict[str, float], after: dict[str, float]) -> str:
    shown = [
        f"{name.replace('_', ' ')} {before[key]:.1f} before and {after[key]:.1f} after"
        for name in SCENE_KINDS
        for key in [f"{name}_recall@1"]
    ]
    return f"Scenes of the test side, recall@1 among {TEST}: {', '.join(shown)}."


def main() -> None:
    """Train, measure, print the table, and put it into the page of benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/video"), help="checkpoints and the trained model")
    parser.add_argument("--no-docs", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start, model = time.time(), with_prefix()
    ordered, mixed = (clip_rows("test", TEST, seed=2, shuffled=shuffled) for shuffled in (False, True))
    scenes = vipolyqwen_evaluator(generated_rows("test", TEST, 2, SCENE_KINDS), batch_size=32, write_csv=False)
    on_scenes: Callable[[], dict[str, float]] = lambda: {k: 100 * v for k, v in scenes(model).items()}  # noqa: E731
    before, scenes_before = Ranks(model, ordered), on_scenes()
    options.output.mkdir(parents=True, exist_ok=True)
    curve = options.output / "curve.jsonl"
    rows = training_rows()
    print(f"rows after {time.time() - start:.0f} s", flush=True)
    train_vipolyqwen(
        model,
        rows,
        options.output,
        loss=DLELoss(model, tasks=TASKS),
        callbacks=[Curve(model, ordered, curve)],
        resume=True,
        **TRAINING,
    )
    after = [Ranks(model, rows) for rows in (ordered, mixed)]
    points = {point["step"]: point["recall@1"] for point in map(json.loads, curve.read_text().splitlines())}
    text = "\n\n".join(
        [
            table(before, *after),
            changes_line(ordered, *after),
            f"Recall@1, caption → clip, by step: {', '.join(f'{s}: {r:.1f}' for s, r in sorted(points.items()))}.",
            scenes_line(scenes_before, on_scenes()),
        ]
    )
    print(f"{text}\n{time.time() - start:.0f} s, of which {time.process_time():.0f} s of the processor")
    if not options.no_docs:
        update_docs("video", text)


if __name__ == "__main__":
    main()
