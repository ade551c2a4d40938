"""A thousand pictures of many sizes through poly-mini: time and peak memory, beside stock's padded batches.

    python -m tests.benchmarks.pictures

Every run is a process of its own, by turns; the figures are medians. "Stock" is the same model with the tower and the
language model as transformers has them: one padded batch, attention in a loop over the pictures.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image

from st_vi.data import sample_nli
from st_vi.data.generated.lines import draw_lines
from st_vi.data.generated.scenes import draw, scene
from st_vi.hub import load
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.tables import update_docs

WAYS = ("st_vi", "stock")


def pictures(count: int) -> list[Image.Image]:
    """Half scenes of 84 to 224 pixels, half lines of text."""
    scenes = [draw(scene("test", seed), size) for seed, size in zip(range(count // 2), cycle((84, 112, 168, 224)))]
    texts = [" ".join(text.split()[:7]) for text in sample_nli("train")["hypothesis"]]
    lines = [
        Image.fromarray(draw_lines(text, Random(number)).pixels)
        for number, text in enumerate(islice(cycle(texts), count - len(scenes)))
    ]
    made = scenes + lines
    Random(0).shuffle(made)
    return made


def run(way: str, count: int, threads: int, output: Path) -> dict[str, Any]:
    """One process's figures; saves the vectors."""
    torch.set_num_threads(threads)
    model: Any = load("poly-mini", device="cpu")
    model[0].distinct_pictures.enabled = way == "st_vi"
    inputs = pictures(count)
    model.encode(inputs[:32])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, worked = time.perf_counter(), time.process_time()
    vectors = model.encode(inputs, batch_size=32)
    seconds, work = time.perf_counter() - begun, time.process_time() - worked
    np.save(output, vectors)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "work": work, "peak": after / 1024, "above": (after - before) / 1024}


def main() -> None:
    """Measure, and write the table into the docs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help="one process, for the command itself")
    parser.add_argument("--vectors", type=Path, default=Path("outputs/pictures"))
    options = parser.parse_args()
    options.vectors.mkdir(parents=True, exist_ok=True)
    if options.way:
        file = options.vectors / f"{options.way}.npy"
        print(json.dumps(run(options.way, options.count, options.threads, file)))
        return
    command = [sys.executable, "-m", "tests.benchmarks.pictures", "--count", str(options.count)]
    command += ["--threads", str(options.threads), "--vectors", str(options.vectors), "--way"]
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.runs):
        for way in WAYS:
            done = subprocess.run([*command, way], check=True, capture_output=True, text=True)
            figures[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, figures[way][-1], flush=True)
    one, other = (np.load(options.vectors / f"{way}.npy") for way in WAYS)
    rows = [
        [way, *(f"{median(each[name] for each in found):.0f}" for name in ("seconds", "work", "peak", "above"))]
        for way, found in figures.items()
    ]
    table = markdown(["", "seconds", "of the processor", "peak memory, MB", "of it while encoding"], rows)
    print(table, f"\nlargest difference of a number: {np.abs(one - other).max():.1e}")
    update_docs("pictures", table)


if __name__ == "__main__":
    main()
