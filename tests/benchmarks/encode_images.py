"""A thousand images to vectors with poly-mini: `encode_by_tokens` against stock `encode` with padded forwards.

    python -m tests.benchmarks.encode_images

A third are scenes of 112 pixels, a third lines of text from 5 to 42 cells, a third scenes with a question. The images
are made beforehand. Each way runs in processes of its own on two threads, by turns: seconds, seconds of the processor,
and the peak of the process's memory above what it had with the model and the images. Both give the same vectors.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image

from st_vi.data import sample_nli
from st_vi.data.generated.lines import draw_lines
from st_vi.data.generated.scenes import draw, questions, scene
from st_vi.encoding import encode_by_tokens
from st_vi.hub import load
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.blocks import memory
from tests.benchmarks.tables import update_docs

PADDED = "stock, padded"
WAYS = {
    PADDED: "stock `encode`, padded",
    "stock": "stock `encode`, images once and grouped",
    "by tokens": "`encode_by_tokens`",
}


def inputs(count: int) -> list[Any]:
    """Shuffled, of many sizes."""
    random, made = Random(0), []
    while len(made) < count:
        shown = scene("train", len(made))
        made += [draw(shown), {"text": questions(shown)[0].wordings[0], "image": draw(shown)}, line(random)]
    random.shuffle(made)
    return made[:count]


def line(random: Random) -> Image.Image:
    """Words of the sample rows in 5 to 42 cells."""
    columns, rows = random.choice(((5, 1), (8, 1), (11, 1), (14, 1), (14, 2), (14, 3)))
    while True:
        words = random.choice(texts()).split()[: columns * rows // 3]
        try:
            return Image.fromarray(draw_lines(" ".join(words), random, columns=columns, rows=rows).pixels)
        except ValueError:  # too long for them
            continue


@cache
def texts() -> list[str]:
    """Premises, all different."""
    return list(dict.fromkeys(sample_nli("train")["premise"]))


def run(way: str, count: int, vectors: Path) -> dict[str, float]:
    """Once, in this process."""
    torch.set_num_threads(2)
    model: Any = load("poly-mini", device="cpu")
    model[0].distinct_pictures.enabled = way != PADDED
    given = inputs(count)
    model.encode(given[:8])
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    begun, worked = time.perf_counter(), time.process_time()
    found = encode_by_tokens(model, given) if way == "by tokens" else model.encode(given, batch_size=32)
    wall, work = time.perf_counter() - begun, time.process_time() - worked
    peak = memory("VmHWM") - before
    np.save(vectors, found)
    return {"wall": wall, "work": work, "peak": peak}


def main() -> None:
    """Print the table and put it into the page of benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(run(options.case[0], options.images, Path(options.case[1]))))
        return
    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    vectors: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.runs):
            for way in WAYS:
                file = Path(folder) / "vectors.npy"
                command = [sys.executable, "-m", "tests.benchmarks.encode_images", "--images", str(options.images)]
                done = subprocess.run([*command, "--case", way, str(file)], capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                results[way].append(json.loads(done.stdout.splitlines()[-1]))
                vectors[way] = np.load(file)
                print(way, results[way][-1], file=sys.stderr, flush=True)
    rows = []
    for way, name in WAYS.items():
        wall, work, peak = (statistics.median(one[key] for one in results[way]) for key in ("wall", "work", "peak"))
        apart = float(np.abs(vectors[way] - vectors[PADDED]).max())
        rows.append([name, f"{wall:.1f}", f"{work:.1f}", f"{peak / 2**20:,.0f}", f"{apart:.0e}"])
    table = markdown(["", "seconds", "of the processor", "peak MiB", "difference"], rows)
    print(table)
    update_docs("encode-images", table)


if __name__ == "__main__":
    main()
