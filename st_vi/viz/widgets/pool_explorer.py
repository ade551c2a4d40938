"""Explorer of attention pooling on text: weights and the effect of deletions."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from st_vi.checks import check_model
from st_vi.inspection.attention import PooledText, effective_number, pool_texts, repool, units
from st_vi.inspection.faithfulness import cosine_drift, deletions, maskings
from st_vi.stock.figures import LiveFigure
from st_vi.text import strip_diacritics
from st_vi.viz.tokens import drift_table, highlight, temperature_bars, weight_bars
from st_vi.viz.widgets.explorer import NONE, Explorer, wrapping

TEXT = "Sáng nay Hà Nội mưa rào nên phố Khâm Thiên ngập sâu, nhiều xe chết máy."
MOST_DELETED = 64
"""Maximum number of units to delete, from the beginning of the text; each requires another encoding."""
TEMPERATURES = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 10.0)


class PoolExplorer(Explorer):
    """Change a text, its prefix and the pooling temperature, or delete a syllable, and see how far the embedding moves.

    Attention is not an explanation: the weight of each unit is shown next to the drift, 1 − cosine, of the embedding if
    the text is encoded again without it. Without a kernel, the bars have a slider over the temperature.

    Args:
        model: Model with attention pooling; see `st_vi.inspection.attention.pool_texts`.
        text: Initial text.
        prompts: Name to prefix; the first is the initial one. None uses those of the model.

    Attributes:
        view: The current text, a `PooledText`.
        bars: The weights, a `LiveFigure`.

    Raises:
        ValueError: The model has no attention pooling, or its tokenizer gives no offsets.

    Example:
        >>> from st_vi.recipes.examples.text_models import example_text_model
        >>> from st_vi.viz import PoolExplorer
        >>> explorer = PoolExplorer(example_text_model(), text="Trời mưa to.")  # doctest: +SKIP
    """

    def __init__(self, model: SentenceTransformer, text: str = TEXT, prompts: Mapping[str, str] | None = None) -> None:
        check_model(model)
        self.model = model
        named = {name: prompt for name, prompt in (model.prompts if prompts is None else prompts).items() if prompt}
        wide = {"description_width": "auto"}
        self.text = w.Textarea(text, description="text", continuous_update=False, rows=2, layout={"width": "95%"})
        self.prefix = w.Dropdown(
            options=[*((f"{name}: {prompt!r}", prompt) for name, prompt in named.items()), ("none", "")],
            description="prefix",
            style=wide,
        )
        self.prefix_in_pool = w.Checkbox(True, description="prefix in pool", indent=False, layout={"width": "auto"})
        self.plain = w.Checkbox(False, description="strip diacritics", indent=False, layout={"width": "auto"})
        self.temperature = w.FloatLogSlider(
            1.0, min=-1, max=1, step=0.05, description="temperature", style=wide, readout_format=".2f"
        )
        self.by = w.Dropdown(options=["syllable", "token"], description="unit")
        self.delete = w.ToggleButtons(options=[("nothing", NONE)], description="delete", style={"button_width": "auto"})
        self.tokens, self.summary, self.table = w.HTML(), w.HTML(), w.HTML()
        self.bars: LiveFigure | None = None
        super().__init__([], self._static_twin)

        (as_model,) = pool_texts(model, [text], prompt=self.prefix.value)
        of_prefix = [kind == "prefix" for kind in as_model.read.kinds]
        self.prefix_in_pool.value = bool(as_model.pooled[of_prefix].any()) or not any(of_prefix)
        self._encode()
        rows = [
            self.text,
            wrapping(self.prefix, self.prefix_in_pool, self.plain),
            wrapping(self.temperature, self.by),
            self.delete,
            self.tokens,
            self.bars,
            self.summary,
            self.table,
        ]
        self.children = [self.notice, *rows]
        for control in (self.text, self.prefix, self.plain, self.by):
            self.on_change(control, self._encode)
        for control in (self.temperature, self.prefix_in_pool):
            self.on_change(control, self._repool)
        self.on_change(self.delete, self._show_deletion)
        self.bars.data[0].on_click(self._clicked)  # type: ignore[attr-defined]

    def _pooling(self) -> dict[str, Any]:
        return {"temperature": self.temperature.value, "include_prompt": self.prefix_in_pool.value}

    def _encode(self) -> None:
        """Run the backbone once for the text and once for the texts without each of its units."""
        text = strip_diacritics(self.text.value) if self.plain.value else self.text.value
        (view,) = pool_texts(self.model, [text], prompt=self.prefix.value, **self._pooling())
        self.without: list[Any] = []
        self.drifts: list[Any] = []
        self._show_weights(view)
        self.delete.options = [("nothing", NONE), *((unit.text, i) for i, unit in enumerate(self.own))]
        self._show_deletion()  # the page draws this while the kernel continues
        self._show_drifts(deletions(self.model, view, self.own))

    def _repool(self) -> None:
        """Pool the output of the backbone with the new settings."""
        view, *without = repool(self.model, [self.view, *self.without], **self._pooling())
        self._show_weights(view)
        self._show_drifts(without)

    def _show_weights(self, view: PooledText) -> None:
        self.view, self.units = view, units(view, self.by.value)
        self.own = [unit for unit in self.units if unit.kind == "text"][:MOST_DELETED]
        self.bars = self.redraw(self.bars, weight_bars(self.units))

    def _show_drifts(self, without: list[PooledText]) -> None:
        self.without, self.drifts = without, cosine_drift(self.view, without).tolist()
        masked = cosine_drift(self.view, maskings(self.model, self.view, self.own)).tolist()
        self.table.value = drift_table(self.own, self.drifts, masked)
        self._show_deletion()

    def _show_deletion(self) -> None:
        number = self.delete.value if self.delete.value in range(len(self.own)) else None
        self.tokens.value = highlight(self.units, None if number is None else self.own[number])
        lines = [self._about_weights(), self._about_drifts()]
        if number is not None:
            lines.append(self._about_deletion(number))
        text = "<br>".join(html.escape(line) for line in lines if line)
        self.summary.value = f'<div id="st-vi-pool" style="background:#fff;color:#1a1a1a;padding:8px">{text}</div>'
        self.show_notice(self._limits())

    def _about_weights(self) -> str:
        count = float(effective_number(self.view.weights))
        shares = {kind: self.view.share(kind) for kind in ("special", "prefix")}
        return (
            f"Effective number of tokens {count:.1f} of {len(self.view.weights)}. Share of the weight on special "
            f"tokens {shares['special']:.1%}, on the prefix {shares['prefix']:.1%}."
        )

    def _about_drifts(self) -> str:
        weights = [unit.weight for unit in self.own]
        if len(self.drifts) < 3 or min(len(set(weights)), len(set(self.drifts))) < 2:
            return ""
        correlation = spearmanr(weights, self.drifts).statistic
        some = "first " if len(self.own) < sum(unit.kind == "text" for unit in self.units) else ""
        return (
            f"Rank correlation of weight and drift over the {some}{len(self.own)} units of this text: "
            f"{correlation:.2f} (1: larger weight means larger drift; 0: no relation)."
        )

    def _about_deletion(self, number: int) -> str:
        others = [drift for i, drift in enumerate(self.drifts) if i != number]
        beside = f"{sum(others) / len(others):.3f} on average" if others else "there is none"
        start, end = self.without[number].read.seen
        return (
            f"Without “{self.own[number].text}” (weight {self.own[number].weight:.3f}) the embedding drifts by "
            f"{self.drifts[number]:.3f}; without a random other unit: {beside}. "
            f"Encoded: “{self.without[number].read.text[start:end]}”"
        )

    def _limits(self) -> str:
        if not self.text.value.strip():
            return "The text is empty: the embedding is computed from special tokens and the prefix only."
        if self.view.truncated:
            start, end = self.view.read.seen
            return (
                f"The text is longer than the model's limit of {self.model.max_seq_length} tokens: anything after "
                f"“…{self.view.read.text[max(start, end - 30) : end]}” is ignored."
            )
        return ""

    def _clicked(self, trace: Any, points: Any, state: Any) -> None:
        if points.point_inds and (unit := self.units[points.point_inds[0]]) in self.own:
            self.delete.value = self.own.index(unit)

    def _static_twin(self) -> go.Figure:
        states = {
            temperature: units(repool(self.model, [self.view], temperature, self.view.include_prompt)[0], self.by.value)
            for temperature in TEMPERATURES
        }
        return temperature_bars(states, title="Weights of the pooling")
