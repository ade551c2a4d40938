"""Formatting of results over seeds, and Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def over_seeds(values: Iterable[float]) -> str:
    """Mean ± standard deviation over seeds (n − 1), or the single value.

    Example:
        >>> from st_vi.recipes.ablation.tables import over_seeds
        >>> over_seeds([66.0, 67.0]), over_seeds([66.0])
        ('66.5 ± 0.7', '66.0')
    """
    values = list(values)
    deviation = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{np.mean(values):.1f}{deviation}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
