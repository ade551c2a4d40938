"""Time and memory of a batch with images that are opened by mini-batch: ``python -m tests.benchmarks.lazy_images``.

`CachedDLELoss` on a small Qwen2-VL with random weights and rows with a JPEG of 448 × 448 pixels each, all different.
The batch is made, embedded and backpropagated in a process of its own, on one thread: CPU time, and the peak of the
process's memory above what it had with the model, of which it gets at most `MAX_GIB`. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from st_vi import CachedDLELoss, MixedTaskCollator
from st_vi.recipes import build_vipolyqwen
from st_vi.recipes.examples.small_models import small_qwen2_vl
from tests.benchmarks.blocks import apart, limit_memory, memory

MINI_BATCH = 4
MAX_GIB = 11.0  # what a case may take above the model
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
    limit_memory(MAX_GIB)
    return step(range(count))


def main() -> None:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 512, 768, 4096])
    options = parser.parse_args()
    if options.case:
        folder, count, lazily = options.case
        print(json.dumps(run(Path(folder), int(count), bool(int(lazily)))))
        return
    print(
        "| rows | lazily: CPU ms per row | eagerly | ratio | lazily: MiB | eagerly | ratio | difference of losses |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw(folder, max(options.rows))
        small_qwen2_vl(["Đọc chữ. Chữ số 0 1 2 3 4 5 6 7 8 9."] * 50, folder / "model", vocab_size=300)
        for count in options.rows:
            lazily, eagerly = (apart("lazy_images", folder, count, kind) for kind in (1, 0))
            assert lazily is not None, "over the limit lazily"
            print(line(count, lazily, eagerly), flush=True)


def line(count: int, lazily: dict[str, float], eagerly: dict[str, float] | None) -> str:
    """A line of the table; without figures of the eager batch if that was over the limit."""
    cells, over = [f"{count:,}"], f"over {MAX_GIB:.0f} GiB"
    for key, unit in (("seconds", count / 1000), ("bytes", 2**20)):
        cells.append(f"{lazily[key] / unit:,.0f}")
        cells.append(f"{eagerly[key] / unit:,.0f}" if eagerly else over)
        cells.append(f"{lazily[key] / eagerly[key]:.2f} ×" if eagerly else "–")
    cells.append(f"{abs(lazily['value'] / eagerly['value'] - 1):.0e}" if eagerly else "–")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
