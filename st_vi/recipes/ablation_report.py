"""The figures of an ablation: means, intervals, a table and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import bootstrap, spearmanr

from st_vi.evaluation.tables import markdown, over_seeds
from st_vi.recipes.ablation import BASELINE, VARIANTS

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds; all figures in percent.

    Attributes:
        name: In `VARIANTS`.
        recalls: By seed: recall@1, the mean over the data sets without scores.
        difference: Of that mean to the baseline's, over the seeds both have; None for the baseline itself.
        interval: Of `difference`: 95 % bootstrap over test rows, each with its mean over seeds. It holds the
            uncertainty of the test rows, not that of the seeds.
        by_kind: Recall@1 of each data set without scores, mean over seeds.
        spearmans: By seed, the mean over the data sets with scores.
        spearman_interval: 95 % bootstrap over test rows, the same for all seeds.
    """

    name: str
    recalls: dict[int, float]
    difference: float | None
    interval: Interval | None
    by_kind: dict[str, float]
    spearmans: dict[int, float]
    spearman_interval: Interval | None


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """The figures of each variant, in the order of `VARIANTS`.

    Args:
        results: From `ablate`.
    """
    by_variant: dict[str, dict[int, Mapping[str, Any]]] = {}
    for result in results:
        by_variant.setdefault(result["variant"], {})[result["seed"]] = result
    baseline = by_variant.get(BASELINE, {})
    return [_summary(name, by_variant[name], baseline) for name in VARIANTS if name in by_variant]


def _summary(name: str, runs: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]) -> Summary:
    hits = {seed: _hits(run) for seed, run in runs.items()}
    kinds = next(iter(hits.values()))
    difference = interval = None
    if name != BASELINE and (common := sorted(set(runs) & set(baseline))):
        of_seed = [{kind: hits[seed][kind] - _hits(baseline[seed])[kind] for kind in kinds} for seed in common]
        # Rows are what is resampled: all seeds are measured on the same ones, and are no further rows.
        by_row = [100 * np.mean([differences[kind] for differences in of_seed], axis=0) for kind in kinds]
        difference = _mean_of_means(*by_row)
        interval = _interval(by_row, _mean_of_means)
    return Summary(
        name,
        {seed: recall(run) for seed, run in runs.items()},
        difference,
        interval,
        {kind: float(np.mean([100 * np.mean(of[kind]) for of in hits.values()])) for kind in kinds},
        {seed: _spearman(run) for seed, run in runs.items() if run["scores"]},
        _spearman_interval(list(runs.values())),
    )


def _mean_of_means(*by_kind: np.ndarray) -> float:
    """Every data set weighs the same, however many rows it has."""
    return float(np.mean([np.mean(values) for values in by_kind]))


def recall(run: Mapping[str, Any]) -> float:
    """Recall@1 in percent, the mean over the data sets without scores."""
    return 100 * _mean_of_means(*_hits(run).values())


def _hits(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {kind: np.array(values) for kind, values in run["hits"].items() if kind not in run["scores"]}


def _spearman(run: Mapping[str, Any]) -> float:
    pairs = [(run["cosines"][kind], run["scores"][kind]) for kind in run["scores"]]
    return 100 * float(np.mean([spearmanr(cosines, scores).statistic for cosines, scores in pairs]))


def _spearman_interval(runs: Sequence[Mapping[str, Any]]) -> Interval | None:
    if not runs[0]["scores"]:
        return None
    rng = np.random.default_rng(0)

    def resampled() -> float:
        values = []
        for kind, scores in runs[0]["scores"].items():
            rows = rng.integers(len(scores), size=len(scores))  # the same for all seeds
            for run in runs:
                values.append(spearmanr(np.array(run["cosines"][kind])[rows], np.array(scores)[rows]).statistic)
        return 100 * float(np.mean(values))

    low, high = np.nanpercentile([resampled() for _ in range(500)], [2.5, 97.5])
    return float(low), float(high)


def _interval(samples: Sequence[np.ndarray], statistic: Any) -> Interval:
    result = bootstrap(samples, statistic, n_resamples=2000, vectorized=False, method="percentile", rng=0)
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def table(summaries: Sequence[Summary]) -> str:
    """The figures as a Markdown table."""
    kinds = list(summaries[0].by_kind)
    with_scores = bool(summaries[0].spearmans)
    header = ["variant", "seeds", "recall@1", "difference [95 %]", *kinds] + ["Spearman [95 %]"] * with_scores
    rows = []
    for summary in summaries:
        change = "" if summary.difference is None else f"{summary.difference:+.1f} {_shown(summary.interval, '+.1f')}"
        cells = [summary.name, str(len(summary.recalls)), over_seeds(summary.recalls.values()), change]
        cells += [f"{summary.by_kind[kind]:.1f}" for kind in kinds]
        if with_scores:
            cells.append(f"{over_seeds(summary.spearmans.values())} {_shown(summary.spearman_interval)}")
        rows.append(cells)
    return markdown(header, rows)


def _shown(interval: Interval | None, form: str = ".1f") -> str:
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"


def plot(summaries: Sequence[Summary]) -> Figure:
    """Each variant's difference to the baseline with its interval, as a plotly figure.

    Raises:
        ImportError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError as error:
        raise ImportError('The plot needs plotly: pip install "st-vi[notebooks]"') from error
    changed: list[Any] = [summary for summary in reversed(summaries) if summary.interval is not None]
    middles = [summary.difference for summary in changed]
    figure = go.Figure(
        go.Scatter(
            x=middles,
            y=[summary.name for summary in changed],
            mode="markers",
            marker={"size": 9, "color": "#0072b2"},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [s.interval[1] - s.difference for s in changed],
                "arrayminus": [s.difference - s.interval[0] for s in changed],
            },
        )
    )
    figure.add_vline(x=0, line_dash="dot")
    figure.update_layout(
        title=f"Recall@1 against {BASELINE} (95 % bootstrap over test rows)",
        xaxis_title="points",
        template="plotly_white",
        height=120 + 36 * len(changed),
        margin={"l": 10},
    )
    figure.update_yaxes(automargin=True)
    return figure
