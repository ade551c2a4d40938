"""What the strategies of `DLELoss(balance=…)` cost, against constant weights: ``python -m tests.benchmarks.balance``.

A forward and backward pass of `CachedDLELoss`, by turns in one process: a whole step of vi-mini with the tasks
text_pair (three terms) and instr (two), and the loss alone, of random embeddings. Prints a Markdown table with the
median over the turns of the ratio to the constants of the same turn.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping

import torch

import st_vi
from st_vi import CachedDLELoss
from st_vi.data import sample_sts
from st_vi.losses.balance import BALANCES
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.timing import seconds_by_turns

CONSTANTS = "constants"
Way = Callable[[int], object]


def of_rows(rows: int) -> torch.Tensor:
    """Labels: half text_pair with scores, half instr."""
    half = rows // 2
    scores = torch.cat([torch.linspace(0, 1, half), torch.full((rows - half,), float("nan"))])
    return torch.stack([(torch.arange(rows) >= half).float(), scores], dim=1)


def losses(model: object, **settings: object) -> dict[str, CachedDLELoss]:
    """One of each strategy."""
    made = {name: CachedDLELoss(model, balance=name, **settings) for name in (None, *BALANCES)}  # type: ignore[arg-type]
    for loss in made.values():
        if loss.balance is not None:
            loss.balance.start()
    return {name or CONSTANTS: loss for name, loss in made.items()}


def whole_steps(rows: int) -> dict[str, Way]:
    """A step of vi-mini."""
    model = st_vi.load("vi-mini").train()
    sentences = sample_sts("train")
    columns = [(list(sentences[name]) * rows)[:rows] for name in ("sentence1", "sentence2")]
    features, labels = [model.preprocess(column) for column in columns], of_rows(rows)

    def way(loss: CachedDLELoss) -> Way:
        def step(_: int) -> None:
            model.zero_grad()
            torch.stack(list(loss([dict(column) for column in features], labels).values())).sum().backward()

        return step

    return {name: way(loss) for name, loss in losses(model).items()}


def losses_alone(rows: int, size: int) -> dict[str, Way]:
    """From embeddings that are there."""
    generator = torch.Generator().manual_seed(0)
    vectors, labels = torch.randn(2, rows, size, generator=generator), of_rows(rows)

    def way(loss: CachedDLELoss) -> Way:
        def step(_: int) -> None:
            columns = [column.clone().requires_grad_() for column in vectors]
            torch.stack(list(loss.compute_loss_from_embeddings(columns, labels).values())).sum().backward()

        return step

    return {name: way(loss) for name, loss in losses(None).items()}


def ratios(ways: Mapping[str, Way], runs: int) -> dict[str, tuple[float, float]]:
    """Median seconds, and the median of the ratios to the constants of the same turn."""
    for way in ways.values():
        way(0)
    seconds = seconds_by_turns(ways, 0, runs)
    return {
        name: (
            statistics.median(times),
            statistics.median(one / other for one, other in zip(times, seconds[CONSTANTS], strict=True)),
        )
        for name, times in seconds.items()
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--loss-rows", type=int, default=1024)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone = ratios(losses_alone(options.loss_rows, 384), options.runs)
    whole = ratios(whole_steps(options.rows), options.runs)
    header = [
        "`balance`",
        f"step of {options.rows} rows, ms",
        "ratio",
        f"loss of {options.loss_rows} rows, ms",
        "ratio",
    ]
    rows = []
    for name in whole:
        (step, to_step), (loss, to_loss) = whole[name], alone[name]
        rows.append([f"`{name}`", f"{1000 * step:.0f}", f"{to_step:.2f}", f"{1000 * loss:.0f}", f"{to_loss:.2f}"])
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
