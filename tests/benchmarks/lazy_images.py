"""Time and memory of a batch with images that are opened by mini-batch: ``python -m tests.benchmarks.lazy_images``.

`CachedDLELoss` on a small Qwen2-VL with random weights and rows with a JPEG of 448 × 448 pixels each, all different.
The batch is made, embedded and backpropagated in a process of its own, on one thread: CPU seconds, and the peak of the
process's memory above what it had with the model. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from st_vi import CachedDLELoss, MixedTaskCollator
from st_vi.recipes import build_vipolyqwen
from st_vi.recipes.examples.small_models import small_qwen2_vl
from tests.benchmarks.blocks import memory

MINI_BATCH = 4
PIXELS = 448


def draw(folder: Path, count: int) -> None:
    """Smooth coloured noise, which compresses like a photograph."""
    random = np.random.default_rng(0)
    for number in range(count):
        colours = Image.fromarray(random.integers(0, 255, (14, 14, 3), dtype=np.uint8))
        colours.resize((PIXELS, PIXELS), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg", quality=90)


def run(folder: Path, count: int, lazily: bool) -> dict[str, float]:
    """One step in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_vipolyqwen(str(folder / "model"), embedding_dimension=128, max_pixels=PIXELS * PIXELS)
    collator = MixedTaskCollator(model.preprocess, lazy_images=lazily)
    loss = CachedDLELoss(model, mini_batch_size=MINI_BATCH)

    def step(numbers: range) -> dict[str, float]:
        rows = [
            {"task": "ocr", "anchor": "Đọc chữ.", "anchor_image": str(folder / f"{n}.jpg"), "positive": f"Chữ số {n}."}
            for n in numbers
        ]
        before = memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        begun, wall = time.process_time(), time.perf_counter()
        batch = collator(rows)
        columns = [
            {key.removeprefix(side): value for key, value in batch.items() if key.startswith(side)}
            for side in ("anchor_", "positive_")
        ]
        value = sum(loss(columns, batch["label"]).values())
        value.backward()
        seconds = time.process_time() - begun
        peak = memory("VmHWM") - before
        return {"value": float(value), "seconds": seconds, "wall": time.perf_counter() - wall, "bytes": peak}

    step(range(2))
    return step(range(count))


def measure(folder: Path, count: int, lazily: bool) -> dict[str, float]:
    """`run` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.lazy_images",
        "--case",
        str(folder),
        str(count),
        str(int(lazily)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 512])
    options = parser.parse_args()
    if options.case:
        folder, count, lazily = options.case
        print(json.dumps(run(Path(folder), int(count), bool(int(lazily)))))
        return
    print(
        "| rows | lazily: CPU s | eagerly | ratio | lazily: MiB | eagerly | ratio | difference of the losses |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(folder, max(options.rows))
        small_qwen2_vl(["Đọc chữ. Chữ số 0 1 2 3 4 5 6 7 8 9."] * 50, folder / "model", vocab_size=300)
        for count in options.rows:
            lazily, eagerly = (measure(folder, count, kind) for kind in (True, False))
            seconds, mebibytes = (
                f"{lazily[key] / unit:,.0f} | {eagerly[key] / unit:,.0f} | {lazily[key] / eagerly[key]:.2f}×"
                for key, unit in (("seconds", 1), ("bytes", 2**20))
            )
            difference = abs(lazily["value"] - eagerly["value"]) / eagerly["value"]
            print(f"| {count} | {seconds} | {mebibytes} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
