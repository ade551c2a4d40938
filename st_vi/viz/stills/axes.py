"""Axes of a still picture: which values they show, and where."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from typing import Any

import numpy as np

MOST_TICKS = 7


def column(values: Any) -> list[Any]:
    """A column of a figure as a list; plotly writes numbers as base64."""
    if isinstance(values, Mapping):
        numbers = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
        shape = [int(size) for size in str(values.get("shape", "")).split(",") if size.strip()]
        return (numbers.reshape(shape) if shape else numbers).tolist()
    return [] if values is None else np.asarray(values, dtype=object).tolist()


@dataclass
class Axis:
    """One axis of a figure.

    Attributes:
        settings: Its part of the layout.
        low: Value at its start; of a log axis its logarithm, of categories their number.
        high: Value at its end.
        names: Its categories, if it has any.
        start: Pixel of `low`.
        end: Pixel of `high`.
    """

    settings: Mapping[str, Any]
    low: float = 0.0
    high: float = 1.0
    names: list[str] | None = None
    start: float = 0.0
    end: float = 1.0

    @property
    def is_log(self) -> bool:
        """Whether it is logarithmic."""
        return bool(self.settings.get("type") == "log")

    def number(self, value: Any) -> float:
        """A value in the units of `low` and `high`; NaN where it has no place."""
        if isinstance(value, str):
            return float(self.names.index(value)) if self.names and value in self.names else float("nan")
        if value is None:
            return float("nan")
        if self.is_log:
            return log10(value) if value > 0 else float("nan")
        return float(value)

    def at(self, value: Any) -> float:
        """The pixel of a value."""
        return self.pixel(self.number(value))

    def pixel(self, number: float) -> float:
        """The pixel of a number in the units of `low` and `high`."""
        return self.start + (number - self.low) / (self.high - self.low) * (self.end - self.start)

    def fit(self, spans: Iterable[tuple[float, float]], room: float, stands: bool = False) -> None:
        """Show the given range, or else all that is drawn (`spans`), with a share of room on either side.

        If bars stand on 0, there is no room below it.
        """
        given = self.settings.get("range")
        if given and None not in given:
            self.low, self.high = map(float, given)
            return
        if self.names is not None:
            self.low, self.high = -0.5, len(self.names) - 0.5
        else:
            ends = [end for span in spans for end in span if isfinite(end)]
            low, high = min(ends, default=0.0), max(ends, default=1.0)
            low, high = (min(0.0, low), max(0.0, high)) if self.settings.get("rangemode") == "tozero" else (low, high)
            gap = room * (high - low) or 0.5
            self.low = low if low == 0 and stands else low - gap
            self.high = high if high == 0 and stands else high + gap
        if self.settings.get("autorange") == "reversed":
            self.low, self.high = self.high, self.low

    def ticks(self) -> list[tuple[float, str]]:
        """Numbers and labels of the ticks."""
        if self.settings.get("visible") is False or self.settings.get("showticklabels") is False:
            return []
        low, high = sorted((self.low, self.high))
        values = column(self.settings.get("tickvals"))
        if values:
            labels = column(self.settings.get("ticktext")) or [_plain(value) for value in values]
            marks = [(self.number(value), str(label)) for value, label in zip(values, labels, strict=False)]
        elif self.names is not None:
            alias = self.settings.get("labelalias") or {}
            marks = [(float(number), str(alias.get(name, name))) for number, name in enumerate(self.names)]
        elif self.is_log:
            marks = [(log10(value), _plain(value)) for value in _decades(low, high)]
        else:
            percent = str(self.settings.get("tickformat", "")).endswith("%")
            marks = [(value, f"{100 * value:.0f}%" if percent else _plain(value)) for value in _steps(low, high)]
        return [(number, label) for number, label in marks if low - 1e-9 <= number <= high + 1e-9]


def _plain(value: Any) -> str:
    if not isinstance(value, int | float):
        return str(value)
    return f"{value:,.10g}".replace("-", "−") if abs(value) >= 1e-4 or value == 0 else f"{value:.0e}"


def _steps(low: float, high: float) -> list[float]:
    """Round numbers from low to high."""
    if not high > low:
        return [low]
    rough = (high - low) / MOST_TICKS
    power = 10 ** floor(log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough)
    return [round(number * step, 12) for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there are few."""
    parts = (1, 2, 5) if high - low < 2.5 else (1,)
    return [part * 10.0**power for power in range(floor(low), ceil(high) + 1) for part in parts]
