"""What the kernel holds of its figures, compared with what a page has drawn."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

HELD = """
def held():
    import json

    from st_vi.stock.figures import LiveFigure

    def figures(widget):
        if isinstance(widget, LiveFigure):
            yield widget
        for child in getattr(widget, "children", ()):
            yield from figures(child)

    print(json.dumps([json.loads(figure.to_json())["data"] for figure in figures(globals().get("explorer"))]))
held()
del held
"""
"""Code that prints the traces of every figure of the notebook's `explorer`, from top to bottom."""

KEYS = ("type", "name", "x", "y", "z")


def different(held: Sequence[Any], drawn: Sequence[Any]) -> Iterator[str]:
    """What is drawn otherwise than it is held: figures, each a list of traces."""
    if len(held) != len(drawn):
        yield f"{len(drawn)} are drawn of {len(held)}"
    for number, (its, shown) in enumerate(zip(held, drawn, strict=False)):
        if len(its) != len(shown):
            yield f"figure {number}: {len(shown)} traces are drawn of {len(its)}"
        for trace, (one, other) in enumerate(zip(its, shown, strict=False)):
            empty = not any(len(_numbers(one[key])) for key in "xyz" if key in one)  # plotly hides it
            empty |= one["type"] == "heatmap" and not _has_values(one["z"])
            if (one.get("visible", True) is True and not empty) is not other["visible"]:
                yield f"figure {number}, trace {trace}: visible is {other['visible']}"
            if other["visible"] is not True:
                continue  # plotly reads no more of it
            pairs = {key: (one[key], other.get(key)) for key in KEYS if key in one}
            if (colour := one.get("marker", {}).get("color")) is not None:
                pairs["marker.color"] = colour, other["marker"].get("color")
            for key, (ours, theirs) in pairs.items():
                if not same(ours, theirs):
                    yield f"figure {number}, trace {trace}: {key} is {theirs!s:.60}, not {ours!s:.60}"


def same(held: Any, drawn: Any) -> bool:
    """Whether two columns are alike but for rounding and the way in which they are written."""
    ours, theirs = (np.asarray(_numbers(column)) for column in (held, drawn))
    if ours.shape != theirs.shape:
        return False
    return (
        bool(np.allclose(ours, theirs, rtol=1e-5, atol=1e-7, equal_nan=True))
        if _counts(ours, theirs)
        else bool((ours == theirs).all())
    )


def _has_values(column: Any) -> bool:
    values = np.asarray(_numbers(column), dtype=object).ravel().tolist()
    return any(value == value for value in values)  # NaN is a gap


def _counts(*columns: np.ndarray) -> bool:
    return all(column.dtype.kind in "fiu" for column in columns)


def _numbers(column: Any) -> Any:
    """Lists; plotly writes numbers as base64, and a gap is None."""
    if isinstance(column, Mapping):
        values = np.frombuffer(base64.b64decode(column["bdata"]), column["dtype"])
        shape = [int(size) for size in str(column.get("shape", "")).split(",") if size.strip()]
        return _numbers((values.reshape(shape) if shape else values).tolist())
    if isinstance(column, list):
        return [_numbers(value) for value in column]
    return float("nan") if column is None else column
