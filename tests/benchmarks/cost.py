"""What a training step costs, by batch size and by length: ``python -m tests.benchmarks.cost``.

ViCLSR on the base of `tests.benchmarks.viclsr`: seconds and memory a row of `SupConNLILoss`, cached and not, for
batches of 8 to 2,048 triplets, and of 64 triplets of 16 to 256 tokens. Prints Markdown tables and draws
docs/figures/cost.svg (``pip install matplotlib``).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from st_vi import CachedSupConNLILoss, SupConNLILoss
from st_vi.recipes import build_viclsr
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.speed import peak_bytes, xnli
from tests.benchmarks.viclsr import BASE

TOKENS = 4096
UNCACHED_UP_TO = 512
FIGURE = Path("docs/figures/cost.svg")
Cost = tuple[float, float]  # seconds and MiB of a step


def step_cost(model: SentenceTransformer, loss: Any, columns: list[list[str]], runs: int) -> Cost:
    """Median seconds of forward and backward, and the peak of PyTorch's allocator above model and batch."""
    features = [model.preprocess(column) for column in columns]
    times = []
    for _ in range(runs):
        model.zero_grad(set_to_none=True)
        started = time.perf_counter()
        loss([dict(column) for column in features], None).backward()
        times.append(time.perf_counter() - started)
    return statistics.median(times), peak_bytes(model, loss, features, None) / 2**20


def by_batch(model: SentenceTransformer, sizes: list[int], runs: int) -> dict[int, dict[str, Cost]]:
    """Costs of real triplets, drawn from all."""
    columns = xnli(max(sizes), shuffled=True)
    cached, plain = CachedSupConNLILoss(model, mini_batch_num_tokens=TOKENS), SupConNLILoss(model)
    costs: dict[int, dict[str, Cost]] = {}
    for size in sizes:
        rows = [column[:size] for column in columns]
        costs[size] = {"cached": step_cost(model, cached, rows, runs)}
        if size <= UNCACHED_UP_TO:
            costs[size]["not cached"] = step_cost(model, plain, rows, runs)
        print(size, costs[size], flush=True)
    return costs


def by_length(model: SentenceTransformer, lengths: list[int], runs: int, rows: int = 64) -> dict[int, dict[str, Cost]]:
    """Costs of triplets whose texts all have so many tokens."""
    words = " ".join(text for column in xnli(512, shuffled=True) for text in column)
    ids = model.tokenizer(words, truncation=False, add_special_tokens=False)["input_ids"]
    loss, costs = SupConNLILoss(model), {}
    for length in lengths:
        starts = torch.randint(len(ids) - length, (3, rows), generator=torch.Generator().manual_seed(0)).tolist()
        texts = [[model.tokenizer.decode(ids[start : start + length - 2]) for start in column] for column in starts]
        costs[length] = {"not cached": step_cost(model, loss, texts, runs)}
        print(length, costs[length], flush=True)
    return costs


def table(first: str, costs: dict[int, dict[str, Cost]], rows: int | None = None) -> str:
    """Milliseconds a row and MiB a step."""
    kinds = list(dict.fromkeys(kind for cost in costs.values() for kind in cost))
    header = [first, *(f"{kind}, {unit}" for kind in kinds for unit in ("ms a row", "MiB a step"))]
    lines = []
    for value, cost in costs.items():
        cells = [f"{1000 * s / (rows or value):.1f}|{m:.0f}" for s, m in (cost.get(k, (0, 0)) for k in kinds)]
        cells = [cell if kind in cost else "|" for cell, kind in zip(cells, kinds, strict=True)]
        lines.append([str(value), *(part for cell in cells for part in cell.split("|"))])
    return markdown(header, lines)


def draw(batches: dict[int, dict[str, Cost]], lengths: dict[int, dict[str, Cost]]) -> None:
    """Both on one sheet."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for kind, colour, mark in (("not cached", "#0072b2", "o"), ("cached", "#d55e00", "s")):
        points = {size: cost[kind] for size, cost in batches.items() if kind in cost}
        per_row = [1000 * s / size for size, (s, _) in points.items()]
        axes[0].plot(points.keys(), per_row, mark + "-", color=colour, label=kind)
        axes[1].plot(points.keys(), [memory for _, memory in points.values()], mark + "-", color=colour, label=kind)
    seconds = [1000 * cost["not cached"][0] / 64 for cost in lengths.values()]
    axes[2].plot(lengths.keys(), seconds, "o-", color="#0072b2")
    for axis, x, y in zip(
        axes, ["triplets"] * 2 + ["tokens a text"], ["ms a row", "MiB a step", "ms a row"], strict=True
    ):
        axis.set(xscale="log", xlabel=x, ylabel=y, ylim=(0, None))
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.grid(alpha=0.3)
    axes[0].legend()
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 32, 128, 512, 2048])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    model = build_viclsr(BASE)
    batches, lengths = by_batch(model, options.sizes, options.runs), by_length(model, options.lengths, options.runs)
    print("\n" + table("triplets", batches) + "\n\n" + table("tokens a text", lengths, rows=64))
    draw(batches, lengths)


if __name__ == "__main__":
    main()
