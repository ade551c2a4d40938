"""Studies on generated or given rows, with a small or a pretrained model."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from st_vi.data import split_by_anchor
from st_vi.data.generated.rows import first_rows, generated_rows, nli_text_pairs, texts_of
from st_vi.files.folders import unfinished
from st_vi.hub import included_or_same, load
from st_vi.model_files import name_and_content
from st_vi.recipes.ablation.run import Study
from st_vi.recipes.base_models import trained_parts
from st_vi.recipes.examples.small_models import small_qwen2_vl

KINDS = ("questions", "dialogues", "image_to_text", "text_pairs")
"""All tasks except ocr, because a small model takes long to learn to read."""
SMALL_MODEL: dict[str, Any] = {"vocab_size": 2000, "width": 96, "layers": 2, "vision_width": 96, "vision_layers": 2}
SMALL_TRAINING: dict[str, Any] = {
    "per_device_train_batch_size": 48,
    "gradient_accumulation_steps": 1,
    "learning_rate": 1.5e-3,
    "learning_rate_mapping": {},  # nothing is pretrained, so all parts have the same learning rate
    "save_strategy": "no",
}
SMALL_PIXELS = 56 * 56
"""Four visual tokens are enough for a scene, and fastest to learn for a small model."""


def generated_study(
    folder: str | Path,
    steps: int,
    rows: int,
    test_rows: int,
    nli: Dataset | None = None,
    base: str | Path | None = None,
) -> Study:
    """A study on generated rows, so many of each kind for training and testing; see `study_of_rows`.

    Text pairs are those of the NLI rows (premise, hypothesis, label by name), with a fifth of the premises held out, or
    else of the sample set; there are five times as many of them for testing.
    """
    train, test = generated_rows("train", rows, 0, KINDS), generated_rows("test", test_rows, 0, KINDS)
    if nli is not None:
        sides = split_by_anchor(nli, test_size=0.2, anchor="premise", seed=0)
        for side, part, count in (("train", train, rows), ("test", test, 5 * test_rows)):
            part["text_pairs"] = first_rows(nli_text_pairs(sides[side]), count, seed=0)
    return study_of_rows(train, test, folder, steps, base)


def study_of_rows(
    train: DatasetDict, test: DatasetDict, folder: str | Path, steps: int, base: str | Path | None = None
) -> Study:
    """A study on given rows.

    Args:
        train: Training rows, as for `train_vipolyqwen`.
        test: Test rows, as for `vipolyqwen_evaluator`.
        folder: Folder for the small models.
        steps: Training steps per run.
        base: A pretrained Qwen2-VL, trained with the settings of the paper, or a viPolyQwen such as "poly-mini", whose
            backbone gets a new pooling and head. None for a small one, randomly initialised for each seed, with a
            single learning rate and an InfoNCE warm-up.
    """
    if base is not None:
        backbone = _backbone(base, Path(folder))
        arguments: dict[str, Any] = {"learning_rate": 2e-5, "save_strategy": "no", "max_steps": steps}
        recorded = name_and_content(included_or_same(base))
        return Study(lambda seed: backbone, train, test, arguments=arguments, base_name=recorded)
    return Study(
        _small_base(texts_of(train), Path(folder)),
        train,
        test,
        build={"embedding_dimension": SMALL_MODEL["width"], "max_pixels": SMALL_PIXELS},
        arguments=SMALL_TRAINING | {"max_steps": steps, "logging_steps": max(1, steps // 10)},
        warm_up=0.5,
        vision_rate=1.0,
        base_name="small, with random weights",
    )


def _backbone(base: str | Path, folder: Path) -> str | Path:
    """The Qwen2-VL itself; that of a trained viPolyQwen is saved in `folder`."""
    name = included_or_same(base)
    if not trained_parts(name):
        return name
    path = folder / f"backbone of {name_and_content(name)}"  # another study in this folder may have another
    if not path.exists():
        with unfinished(path) as new:
            transformer: Any = load(name, device="cpu")[0]
            transformer.save(str(new / "model"))
            (new / "model").rename(path)
    return path


def _small_base(texts: list[str], folder: Path) -> Callable[[int], Path]:
    known = blake2b("\n".join(texts).encode(), digest_size=4).hexdigest()  # the tokenizer depends on the texts

    def save(seed: int) -> Path:
        path = folder / f"base-{seed}-{known}"
        if not path.exists():
            with unfinished(path) as new:
                small_qwen2_vl(texts, new, seed=seed, **SMALL_MODEL)
                new.rename(path)
        return path

    return save
