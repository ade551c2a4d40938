"""Report of an ablation: means, confidence intervals, a table and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import bootstrap

from st_vi.evaluation.base import spearman
from st_vi.recipes.ablation.run import BASELINE, VARIANTS
from st_vi.recipes.ablation.tables import markdown, over_seeds

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """Results of one variant over its seeds, in percent.

    Attributes:
        name: Name in `VARIANTS`.
        recalls: Recall@1 by seed, the mean over datasets without scores; empty if all have scores.
        difference: Difference to the baseline over common seeds, of the recall, or of the correlation if all datasets
            have scores; None for the baseline itself.
        interval: 95 % bootstrap interval of `difference` over test rows, using the mean of each row over seeds. It
            covers the uncertainty of the test rows, not that of the seeds.
        by_kind: Recall@1 of each dataset without scores, mean over seeds.
        spearmans: Correlation by seed, the mean over datasets with scores; empty if none has.
        spearman_interval: 95 % bootstrap interval over test rows, which are the same for all seeds.
    """

    name: str
    recalls: dict[int, float]
    difference: float | None
    interval: Interval | None
    by_kind: dict[str, float]
    spearmans: dict[int, float]
    spearman_interval: Interval | None


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Summary]:
    """Summarise the results of `ablate` by variant, in the order of `VARIANTS`."""
    by_variant: dict[str, dict[int, Mapping[str, Any]]] = {}
    for result in results:
        by_variant.setdefault(result["variant"], {})[result["seed"]] = result
    if not by_variant:
        raise ValueError("there are no results yet")
    baseline = by_variant.get(BASELINE, {})
    return [_summary(name, by_variant[name], baseline) for name in VARIANTS if name in by_variant]


def _summary(name: str, runs: Mapping[int, Mapping[str, Any]], baseline: Mapping[int, Mapping[str, Any]]) -> Summary:
    hits = {seed: _hits(run) for seed, run in runs.items()}
    kinds = next(iter(hits.values()))
    scored = next(iter(runs.values()))["scores"]
    difference = interval = None
    if name != BASELINE and (common := sorted(set(runs) & set(baseline))):
        pairs = [(runs[seed], baseline[seed]) for seed in common]
        difference, interval = _recall_difference(pairs) if kinds else _spearman_difference(pairs)
    return Summary(
        name,
        {seed: recall(run) for seed, run in runs.items() if kinds},
        difference,
        interval,
        {kind: float(np.mean([100 * np.mean(of[kind]) for of in hits.values()])) for kind in kinds},
        {seed: _spearman(run) for seed, run in runs.items() if scored},
        _ends(_resampled_spearmans(list(runs.values()))) if scored else None,
    )


Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def _recall_difference(pairs: Pairs) -> tuple[float, Interval]:
    of_seed = [{kind: hits - _hits(other)[kind] for kind, hits in _hits(run).items()} for run, other in pairs]
    # Rows are resampled; seeds share the same rows and do not count as further rows.
    by_row = [100 * np.mean([differences[kind] for differences in of_seed], axis=0) for kind in of_seed[0]]
    result = bootstrap(by_row, _mean_of_means, n_resamples=2000, vectorized=False, method="percentile", rng=0)
    return _mean_of_means(*by_row), (float(result.confidence_interval.low), float(result.confidence_interval.high))


def _spearman_difference(pairs: Pairs) -> tuple[float, Interval]:
    # Paired: both use the same resampled rows.
    runs, others = (_resampled_spearmans(side) for side in zip(*pairs, strict=True))
    return float(np.mean([_spearman(run) - _spearman(other) for run, other in pairs])), _ends(runs - others)


def _mean_of_means(*by_kind: np.ndarray) -> float:
    """Mean in which every dataset has the same weight, regardless of its size."""
    return float(np.mean([np.mean(values) for values in by_kind]))


def headline(run: Mapping[str, Any]) -> str:
    """The main result of a run: recall@1, or the correlation if all datasets have scores."""
    return f"recall@1 {recall(run):.1f}" if _hits(run) else f"Spearman {_spearman(run):.1f}"


def recall(run: Mapping[str, Any]) -> float:
    """Recall@1 in percent, the mean over datasets without scores."""
    return 100 * _mean_of_means(*_hits(run).values())


def _hits(run: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {kind: np.array(values) for kind, values in run["hits"].items() if kind not in run["scores"]}


def _spearman(run: Mapping[str, Any]) -> float:
    pairs = [(run["cosines"][kind], run["scores"][kind]) for kind in run["scores"]]
    return 100 * float(np.mean([spearman(np.array(cosines), np.array(scores)) for cosines, scores in pairs]))


def _resampled_spearmans(runs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Mean correlation over datasets and runs, for 500 resamples of the rows."""
    rng = np.random.default_rng(0)

    def resampled() -> float:
        values = []
        for kind, scores in runs[0]["scores"].items():
            rows = rng.integers(len(scores), size=len(scores))  # the same for all seeds
            for run in runs:
                values.append(spearman(np.array(run["cosines"][kind])[rows], np.array(scores)[rows]))
        return 100 * float(np.mean(values))

    return np.array([resampled() for _ in range(500)])


def _ends(samples: np.ndarray) -> Interval:
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)


def table(summaries: Sequence[Summary]) -> str:
    """The results as a Markdown table."""
    kinds = list(summaries[0].by_kind)
    with_scores = bool(summaries[0].spearmans)
    spearman = ["Spearman [95 %]"] * with_scores
    if kinds:
        header = ["variant", "seeds", "recall@1", "difference [95 %]", *kinds, *spearman]
    else:
        header = ["variant", "seeds", *spearman, "difference [95 %]"]
    rows = []
    for summary in summaries:
        change = "" if summary.difference is None else f"{summary.difference:+.1f} {_shown(summary.interval, '+.1f')}"
        seeds = str(len(summary.recalls or summary.spearmans))
        figure = f"{over_seeds(summary.spearmans.values())} {_shown(summary.spearman_interval)}" if with_scores else ""
        if kinds:
            recalls = [over_seeds(summary.recalls.values()), change, *(f"{summary.by_kind[k]:.1f}" for k in kinds)]
            rows.append([summary.name, seeds, *recalls, *[figure] * with_scores])
        else:
            rows.append([summary.name, seeds, figure, change])
    return markdown(header, rows)


def _shown(interval: Interval | None, form: str = ".1f") -> str:
    return "" if interval is None else f"[{interval[0]:{form}}, {interval[1]:{form}}]"


def graph_objects() -> ModuleType:
    """`plotly.graph_objects`; ask for it before a study, so that it is not missed after hours of training."""
    try:
        return import_module("plotly.graph_objects")
    except ImportError as error:
        raise ImportError('The plot needs plotly: pip install "st-vi[notebooks]"') from error


def plot(summaries: Sequence[Summary]) -> Figure:
    """Plot the difference of each variant to the baseline with its interval."""
    go = graph_objects()
    changed: list[Any] = [summary for summary in reversed(summaries) if summary.interval is not None]
    figure_of = "Recall@1" if summaries[0].recalls else "Spearman"
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
        title=f"{figure_of} against {BASELINE} (95 % bootstrap over test rows)",
        xaxis_title="points",
        template="plotly_white",
        height=120 + 36 * len(changed),
        margin={"l": 10},
    )
    figure.update_yaxes(automargin=True)
    return figure
