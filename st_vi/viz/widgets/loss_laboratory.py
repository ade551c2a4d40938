"""Explorer of a loss: live training of a few points with adjustable weights, temperature and batch size."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as w
import plotly.graph_objects as go

from st_vi.checks import check_whole
from st_vi.stock.figures import LiveFigure
from st_vi.tasks import VIPOLYQWEN_TASKS, Task
from st_vi.terms import Term
from st_vi.viz.free_points import ALL_TERMS, FreePoints, Moment, adjusted
from st_vi.viz.laboratory import Traces, entry, laboratory, panels, replay
from st_vi.viz.widgets.explorer import Explorer, beside, wrapping

MOST_STEPS = 1000


class LossLaboratory(Explorer):
    """Train a few pairs of points on a sphere live with `DLELoss` and its terms; see `FreePoints`.

    Play and Step train on random batches. All other controls take effect immediately on the gradients, the penalties of
    the negatives and the next step. Only Reset and a new share of false negatives restart the training.

    Args:
        rows: Number of pairs.
        dimension: 3 for a sphere, 2 for a circle, on which points cannot pass each other.
        seed: Seed for points, scores and batches.
        interval: Milliseconds between two steps of Play.

    Attributes:
        points: The `FreePoints` in training.
        history: One entry per step, as in the ``log_history`` of a trainer.
        path: (alignment, uniformity) of each step.
        figures: A `LiveFigure` for each panel; see `laboratory`.

    Raises:
        ValueError: Another dimension, or fewer than 4 rows.

    Example:
        >>> from st_vi.viz import LossLaboratory
        >>> laboratory = LossLaboratory(rows=8)
        >>> laboratory.step.click()
        >>> laboratory.points.steps
        1
    """

    def __init__(self, rows: int = 24, dimension: int = 3, seed: int = 0, interval: int = 250) -> None:
        check_whole("rows", rows, 2)
        check_whole("dimension", dimension, 2, 3)
        check_whole("interval", interval)
        self._make = lambda twins: FreePoints(rows, dimension, twins, seed)
        self._make_controls(rows, interval)
        self._start()
        moment = self._look()
        self.figures = [LiveFigure(figure) for figure in laboratory(self._panels(moment), dimension)]
        self._say(moment)
        self.state.layout.width = "100%"
        points, *others = self.figures
        small = beside(beside(*others[:2], width=240), beside(*others[2:], width=240), width=600)
        super().__init__([*self._panel(), self.state, beside(points, small)], self._film)
        self._connect()

    def _make_controls(self, rows: int, interval: int) -> None:
        wide = {"style": {"description_width": "110px"}, "layout": w.Layout(width="400px")}
        self.task = w.Dropdown(options=[task.name for task in VIPOLYQWEN_TASKS], description="terms of task", **wide)
        self.switches = {name: w.Checkbox(True, description=name, indent=False) for name in _kinds()}
        self.weights = {name: w.FloatSlider(1, min=0, max=5, step=0.25, description="λ") for name in _kinds()}
        for switch, weight in zip(self.switches.values(), self.weights.values(), strict=True):
            switch.layout.width, weight.layout.width, weight.style.description_width = "190px", "240px", "20px"
        self.temperature = w.FloatLogSlider(
            0.07, min=-2, max=0, step=0.05, description="temperature", readout_format=".3f", **wide
        )
        self.batch_size = w.IntSlider(min(16, rows), min=2, max=rows, description="batch size", **wide)
        self.false_negatives = w.FloatSlider(0.5, min=0, max=1, step=0.1, description="false negatives", **wide)
        self.spare = w.Checkbox(False, description="tell the loss which they are", indent=False)
        self.play = w.Play(0, min=0, max=MOST_STEPS, interval=interval, show_repeat=False)
        self.step, self.reset = w.Button(description="Step"), w.Button(description="Reset")
        self.state = w.HTML()
        self._take_task()

    def _panel(self) -> list[w.Widget]:
        terms = [wrapping(self.switches[name], self.weights[name]) for name in _kinds()]
        sliders = [self.temperature, self.batch_size, self.false_negatives, self.spare]
        columns = [self.task, *terms], [wrapping(self.play, self.step, self.reset), *sliders]
        return [wrapping(*(w.VBox(column) for column in columns))]

    def _connect(self) -> None:
        for control in (*self.switches.values(), *self.weights.values(), self.temperature, self.spare):
            self.on_change(control, lambda: None if self._taking else self._refresh())
        self.on_change(self.task, self._take_task)
        self.on_change(self.task, self._refresh)
        self.on_change(self.batch_size, self._draw)
        self.on_change(self.false_negatives, self._restart)
        self.on_change(self.play, self._tick)
        self.step.on_click(lambda _: self.guarded(self._advance))
        self.reset.on_click(lambda _: self.guarded(self._reset))

    # Controls

    def _terms(self) -> tuple[Term, ...]:
        terms = {type(term).__name__: term for term in (*ALL_TERMS, *_task(self.task.value).terms)}
        weights = {name: weight.value * self.switches[name].value for name, weight in self.weights.items()}
        return adjusted(tuple(terms.values()), self.temperature.value, weights)

    def _take_task(self) -> None:
        weights = {type(term).__name__: term.weight for term in _task(self.task.value).terms}
        self._taking = True  # treat them as one change
        for name in _kinds():
            self.weights[name].value = weights.get(name, 1.0)
            self.switches[name].value = name in weights
        self._taking = False

    def _tick(self) -> None:
        if self.play.value:
            self._advance()  # one step per message, so that a slow kernel builds up no backlog
        elif self.points.steps:  # the player's own stop button
            self._restart()

    def _reset(self) -> None:
        self.play.playing = False
        self._restart()
        self.play.value = 0

    def _restart(self) -> None:
        self._start()
        self._refresh()

    def _start(self) -> None:
        self.points = self._make(self.false_negatives.value)
        self.history: list[Any] = []
        self.path: list[Any] = []
        self.points.draw(self.batch_size.value)
        self._write_down(self._look())

    def _draw(self) -> None:
        self.points.draw(self.batch_size.value)
        self._refresh()

    def _advance(self) -> None:
        self.points.step(self._terms(), self.spare.value)
        moment = self._look()
        self._write_down(moment)
        self._refresh(moment)

    def _look(self) -> Moment:
        return self.points.look(self._terms(), self.spare.value)

    def _write_down(self, moment: Moment) -> None:
        self.history.append(entry(moment, self.points.steps))
        self.path.append((moment.alignment, moment.uniformity))

    # Drawing

    def _panels(self, moment: Moment) -> list[Traces]:
        return panels(self.points, moment, self.history, self.path)

    def _refresh(self, moment: Moment | None = None) -> None:
        moment = moment or self._look()
        for figure, traces in zip(self.figures, self._panels(moment), strict=True):
            with figure.batch_update():
                for old, values in zip(figure.data, traces, strict=True):
                    old.update(values)
        self._say(moment)
        if not any(term.weight for term in self._terms()):
            self.show_notice("All terms are off, so there is no gradient: switch one on, or raise its λ.")

    def _film(self) -> go.Figure:
        points, terms = self._make(self.false_negatives.value), self._terms()
        return replay(points, terms, self.batch_size.value, spare_twins=self.spare.value)

    def _say(self, moment: Moment) -> None:
        figures = {
            "step": f"{self.points.steps}",
            "alignment": f"{moment.alignment:.2f}",
            "uniformity": f"{moment.uniformity:.2f}",
            "tolerance (cosine of twins)": "no twins" if moment.tolerance is None else f"{moment.tolerance:.2f}",
            "nearest positive is right": f"{moment.found:.0%}",
        }
        words = " · ".join(f"{html.escape(name)} <b>{html.escape(value)}</b>" for name, value in figures.items())
        self.state.value = (
            f'<div id="st-vi-laboratory" style="background:#f2f2f2;color:#1a1a1a;padding:4px 8px">{words}</div>'
        )


def _kinds() -> list[str]:
    return [type(term).__name__ for term in ALL_TERMS]


def _task(name: str) -> Task:
    return next(task for task in VIPOLYQWEN_TASKS if task.name == name)
