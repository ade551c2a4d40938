"""`NextTokenLoss` on long captions of drawn scenes, beside a contrastive loss on short ones: `poly-mini`, three seeds.

    python -m tests.benchmarks.next_token                # train and measure everything, then update docs/benchmarks.md
    python -m tests.benchmarks.next_token --table-only   # update the table from the figures measured so far

Every finished run is one line of a JSON Lines file, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import random
import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Image
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from st_vi import DLELoss, Task, load, train_vipolyqwen
from st_vi.data.generated.scenes import NUMBERS, PLACES, Scene, Shape, draw, scene
from st_vi.losses import NextTokenLoss
from st_vi.recipes.ablation.tables import markdown, over_seeds
from st_vi.terms import InfoNCE
from tests.benchmarks.results import Results, options_of
from tests.benchmarks.tables import update_docs

SIZE = 112
TEST = 200
TASKS = [Task("instr", "<instr>", (InfoNCE(temperature=0.07, symmetric=True),))]
VARIANTS: dict[str, tuple[str, ...]] = {
    "poly-mini": (),
    "short captions compared": ("short", "short"),
    "+ long ones predicted (VladVA)": ("short", "predicted"),
    "+ long ones compared": ("short", "compared"),
}
"""What each of the two batches of a step is."""

FIGURES = {
    "short": "scene → short caption",
    "long": "scene → long caption",
    "swapped": "places swapped",
    "surprise": "nats per token",
}
TRAINING: dict[str, Any] = {
    "max_steps": 100,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 2,
    "multi_dataset_batch_sampler": "round_robin",
    "learning_rate": 1e-4,
    "learning_rate_mapping": {r"visual\.": 1e-5},
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


def short_caption(drawn: Scene) -> str:
    """What there is: "Hai ngôi sao tím, một hình tròn đỏ."."""
    text = ", ".join(f"{NUMBERS[len(shapes)]} {name}" for name, shapes in drawn.groups.items())
    return f"{text[0].upper()}{text[1:]}."


def long_caption(drawn: Scene) -> str:
    """Every shape with its size and place."""
    parts = [f"{PLACES[shape.position]} có một {shape.name} {shape.size}" for shape in drawn.shapes]
    return " ".join(f"{part[0].upper()}{part[1:]}." for part in parts)


def with_places_swapped(drawn: Scene, rng: random.Random) -> Scene:
    """Two shapes that differ in kind or colour change places: the long caption has the same words."""
    first = rng.choice(drawn.shapes)
    second = rng.choice([shape for shape in drawn.shapes if shape.name != first.name])
    moved = {first: Shape(first.kind, first.colour, first.size, second.position)}
    moved[second] = Shape(second.kind, second.colour, second.size, first.position)
    return Scene(tuple(moved.get(shape, shape) for shape in drawn.shapes))


def scenes(split: Any, count: int, seed: int) -> list[Scene]:
    """Distinct scenes with shapes of at least two names."""
    rng, found = random.Random(f"{split} {seed}"), dict[Scene, None]()
    while len(found) < count:
        if len((one := scene(split, rng.getrandbits(48))).groups) > 1:
            found[one] = None
    return list(found)


def rows(drawn: list[Scene], caption: Any) -> Dataset:
    """Pictures and their captions."""
    pictures = [{"anchor": "", "anchor_image": draw(one, SIZE), "positive": caption(one)} for one in drawn]
    return Dataset.from_list([row | {"task": "instr"} for row in pictures]).cast_column("anchor_image", Image())


def recall(pictures: np.ndarray, texts: list[str], vectors: np.ndarray) -> float:
    """Share of pictures whose own caption is the nearest of all distinct ones, in percent."""
    distinct = {text: place for place, text in reversed([*enumerate(texts)])}
    places = list(distinct.values())
    best = (pictures @ vectors[places].T).argmax(axis=1)
    return 100 * float(np.mean([texts[places[place]] == text for place, text in zip(best, texts, strict=True)]))


def measure(model: SentenceTransformer) -> dict[str, float]:
    """On scenes whose inventory no training scene has; shares in percent."""
    drawn, rng = scenes("test", TEST, seed=7), random.Random(7)
    pictures = model.encode([draw(one, SIZE) for one in drawn], batch_size=32)
    short, long = ([caption(one) for one in drawn] for caption in (short_caption, long_caption))
    swapped = [long_caption(with_places_swapped(one, rng)) for one in drawn]
    vectors = {name: model.encode(texts, batch_size=32) for name, texts in (("s", short), ("l", long), ("x", swapped))}
    true, false = ((pictures * vectors[name]).sum(axis=1) for name in ("l", "x"))
    loss = NextTokenLoss(model, allow_untied=True)
    surprises = []
    with torch.no_grad():
        for start in range(0, TEST, 25):
            columns = [model.preprocess([draw(one, SIZE) for one in drawn[start : start + 25]])]
            surprises.append(float(loss([*columns, model.preprocess(long[start : start + 25])])))
    return {
        "short": recall(pictures, short, vectors["s"]),
        "long": recall(pictures, long, vectors["l"]),
        "swapped": 100 * float((true > false).mean()),
        "surprise": float(np.mean(surprises)),
    }


def run(name: str, seed: int) -> dict[str, Any]:
    """Train one variant with one seed, and measure it."""
    started, kinds = time.time(), VARIANTS[name]
    set_seed(seed)
    model = load("poly-mini", device="cpu")
    if kinds:
        drawn = scenes("train", TRAINING["max_steps"] * TRAINING["per_device_train_batch_size"], seed)
        captions = {"short": short_caption, "compared": long_caption, "predicted": long_caption}
        made = {f"{number} {kind}": rows(drawn, captions[kind]) for number, kind in enumerate(kinds)}
        contrastive = DLELoss(model, TASKS)
        losses: dict[str, torch.nn.Module] = {
            key: NextTokenLoss(model, allow_untied=True) if "predicted" in key else contrastive for key in made
        }
        with tempfile.TemporaryDirectory() as folder:
            arguments = TRAINING | {"seed": seed, "use_cpu": True, "bf16": True}
            train_vipolyqwen(model, DatasetDict(made), folder, loss=losses, prefix_side="none", **arguments)
    model.eval()
    return {"name": name, "seed": seed, "seconds": round(time.time() - started), **measure(model)}


def table(results: list[dict[str, Any]]) -> str:
    """Mean ± standard deviation over seeds, one row a variant."""
    lines = []
    for name in VARIANTS:
        if runs := [result for result in results if result["name"] == name]:
            figures = [over_seeds([result[figure] for result in runs]) for figure in FIGURES]
            lines.append([name, str(len(runs)), *figures])
    return markdown(["trained on", "seeds", *FIGURES.values()], lines)


def main() -> None:
    """Run what has no figures yet, then print the table and put it into the docs."""
    options = options_of(__doc__, "next_token").parse_args()
    torch.set_num_threads(1)
    results = Results(options.results)
    done = {(result["name"], result["seed"]) for result in results}
    for seed in [] if options.table_only else options.seeds:
        for name, kinds in VARIANTS.items():
            # Without training there is nothing random.
            if (name, seed) in done or (not kinds and seed != options.seeds[0]):
                continue
            results.keep(run(name, seed))
            print(results[-1], flush=True)
    print(table(results))
    if not options.no_docs:
        update_docs("next-token", table(results))


if __name__ == "__main__":
    main()
