"""Hands and eyes for a notebook in a real browser: move its controls, and see whether what is drawn has changed."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import nbformat
from jupyter_client import BlockingKernelClient
from playwright.sync_api import Locator, Page
from plotly.io import to_html
from plotly.offline import get_plotlyjs

from tests.notebooks.headless import fail_with
from tests.notebooks.held import HELD, different
from tests.notebooks.lab import Lab

SCREENSHOTS = Path(__file__).parent / "screenshots"
ANSWERS = SCREENSHOTS / f"answers{os.environ.get('PYTEST_XDIST_WORKER', '')}.md"
PROMISE = 0.5
"""Seconds for an answer on a quiet machine. Whether it is kept is for the table in `ANSWERS` to tell: a test must not
fail because others use the machine. So the limit is ten times the promise, and more where programs wait in line."""
TRACEBACK = "Traceback (most recent call last)"
UNASKED = ("_js2py_traceDeltas", "_js2py_widget_layoutDelta", "plotly_selected", "plotly_hover")
"""Of a stock `FigureWidget`; a lasso over 1,600 points makes 250 kB of them."""
FIGURE = ".jp-Notebook .js-plotly-plot"
FIGURE_TYPE = "application/vnd.plotly.v1+json"
OUTPUT = ".jp-Notebook .jp-OutputArea-output"
KERNEL = "stVi.kernel().id"
FAILED = "the code of the test has failed:"
ASK = f"""
def ask(code):
    import linecache, sys, traceback
    linecache.cache["the test"] = len(code), None, code.splitlines(keepends=True), "the test"
    try:
        exec(compile(code, "the test", "exec"), globals())
    except Exception:
        print({FAILED!r}, traceback.format_exc())
"""
"""Runs code in a kernel and prints how it failed; after a real error there, the kernel hears no more from the page."""
LIBRARY = "".join(Path(__file__).with_name(f"{name}.js").read_text(encoding="utf-8") for name in ("page", "boxes"))
WIDE = 1500  # of a page at first
WIDTHS = (390, 900, 1400)


class OpenNotebook(AbstractContextManager["OpenNotebook"]):
    """A notebook in JupyterLab whose cells have all run.

    Args:
        page: A fresh page of a browser.
        lab: The server that has the notebook.
        name: Of the notebook, without its suffix.

    Attributes:
        wrong: What must not happen and did: requests off localhost, errors of the page, tracebacks of the kernel,
            those of widget callbacks included.
        moved: What the hand did last.
    """

    def __init__(self, page: Page, lab: Lab, name: str) -> None:
        self.page, self.lab, self.name, self.wrong, self.moved = page, lab, name, [], ""
        self._client: BlockingKernelClient | None = None
        page.on("request", lambda request: self._check_address(request.url))
        page.on("pageerror", lambda error: self.wrong.append(f"error in the page: {error}"))
        page.on("websocket", self._watch)
        page.add_init_script(LIBRARY)
        page.emulate_media(reduced_motion="reduce")  # a spinner takes as long to paint as a cell to run
        page.goto(f"{lab.url}/lab/tree/{name}.ipynb?token={lab.token}&reset")
        page.wait_for_function("window.stVi && stVi.ready()", polling=200, timeout=180_000)
        page.add_style_tag(content="* {animation: none !important; transition: none !important}")
        self.evaluate("stVi.startClock()")
        self.evaluate("stVi.runAll()")
        page.wait_for_function("!stVi.running", polling=200, timeout=600_000)
        self.check()
        self._settle()
        self.check()
        assert self.evaluate("stVi.notRun()") == 0, f"{name}: not all cells have run"
        self.evaluate("stVi.watchFigures()")

    def _check_address(self, url: str) -> None:
        if not re.match(r"(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|data:|blob:|about:|chrome", url):
            self.wrong.append(f"request off localhost: {url}")

    def _watch(self, socket: Any) -> None:
        self._check_address(socket.url)
        socket.on("framereceived", self._read)
        socket.on("framesent", self._overhear)

    def _read(self, frame: str | bytes) -> None:
        text = frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame
        if self._client and self._client.session.session in text:
            return  # an answer to `execute`, which raises it
        if TRACEBACK in text and '"execute_reply"' not in text:
            plain = re.sub(r"\\u001b\[[\d;]*m", "", text).replace("\\n", "\n").replace('", "', "\n")
            self.wrong.append(plain[max(0, plain.index(TRACEBACK) - 300) :][:4000])

    def _overhear(self, frame: str | bytes) -> None:
        text = frame.decode("utf-8", "replace") if isinstance(frame, bytes) else frame
        self.wrong += [f"the page sends what no figure asked for: {word}" for word in UNASKED if word in text]

    def check(self) -> None:
        """Fail if something has gone wrong since the notebook was opened."""
        assert not self.wrong, f"{self.name}:\n" + "\n\n".join(self.wrong)

    def finish(self) -> None:
        """Let everything under way come to its end, and fail if something went wrong."""
        self.page.wait_for_timeout(200)
        self._settle()
        self.check()

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression, or of a function called with the argument."""
        return self.page.evaluate(script, argument)

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._client:
            self._client.stop_channels()

    # What the kernel holds

    def execute(self, code: str) -> str:
        """Run code in the kernel of the page, and return what it prints; an error there fails the test."""
        if self._client is None:
            self._client = BlockingKernelClient(connection_file=str(self.lab.connection_file(self.evaluate(KERNEL))))
            self._client.load_connection_file()
            self._client.start_channels(hb=False, stdin=False)
            self._client.wait_for_ready(timeout=60)
        said: list[str] = []
        self._client.execute_interactive(
            f"{ASK}\nask({code!r})\ndel ask",
            store_history=False,
            allow_stdin=False,
            timeout=900,
            output_hook=lambda message: said.append(message["content"].get("text", "")),
        )
        text, _, failure = "".join(said).partition(FAILED)
        if failure:
            fail_with(failure)
        return text

    def content(self) -> nbformat.NotebookNode:
        """The notebook with its outputs."""
        return nbformat.from_dict(json.loads(self.evaluate("JSON.stringify(stVi.panel().content.model.toJSON())")))

    # What is to be seen

    def data(self, figure: int, trace: int, key: str) -> Any:
        """Plain numbers of a drawn trace, such as `data(0, 0, "marker.color")`."""
        return self.evaluate("([figure, trace, key]) => stVi.data(figure, trace, key)", [figure, trace, key])

    def text(self, selector: str) -> str:
        """The visible text of the first element in the notebook for this CSS selector."""
        return self.page.locator(f".jp-Notebook {selector}").first.inner_text()

    def check_drawn(self) -> None:
        """Fail unless every figure is drawn with the data that the kernel, or the output of the cell, holds."""
        self._settle()
        live = json.loads(self.execute(HELD).strip().splitlines()[-1])
        plain = [figure["data"] for figure in self._figures(of_explorers=False)]
        for _ in range(30):  # a page on a busy machine draws what it was told a while ago
            drawn = self.evaluate("stVi.traces()")
            differences = [*different(live, drawn["live"]), *different(plain, drawn["plain"])]
            if not differences:
                return
            self.page.wait_for_timeout(300)
        raise AssertionError(f"{self.name}: drawn otherwise than held:\n" + "\n".join(differences))

    def _figures(self, of_explorers: bool) -> list[dict[str, Any]]:
        """The plotly figures in the outputs of all cells, those that stand for explorers or the others."""
        outputs = [output.get("data", {}) for cell in self.content().cells for output in cell.get("outputs", ())]
        return [
            data[FIGURE_TYPE]
            for data in outputs
            if FIGURE_TYPE in data and ("application/vnd.jupyter.widget-view+json" in data) is of_explorers
        ]

    def check_boxes(self, all_widths: Sequence[int] = WIDTHS) -> None:
        """Fail if text is cut, overlapping or illegible, or a figure leaves its cell, at any width and in either theme.

        A theme changes no places, so the dark one is looked at once.
        """
        wrong = []
        for theme, widths in {"light": all_widths, "dark": all_widths[-1:]}.items():
            self.theme(theme)
            for width in widths:
                self.widen(width)
                wrong += [f"{width} pixels, {theme}: {line}" for line in _at_rest(self.page)]
                self.screenshot(f"{theme}-{width}")
        self.theme("light")
        self.widen(WIDE)
        wrong += self._boxes_of_twins(all_widths)
        assert not wrong, f"{self.name}:\n" + "\n".join(wrong)

    def _boxes_of_twins(self, widths: Sequence[int]) -> list[str]:
        """The same of the figures that stand for the explorers in a page without a kernel."""
        markups = [
            to_html(
                {part: figure[part] for part in ("data", "layout", "frames") if part in figure},
                **{"auto_play": False, "include_plotlyjs": False, "full_html": False, "validate": False},
            )
            for figure in self._figures(of_explorers=True)
        ]
        if not markups:
            return []
        page, wrong = self.page.context.browser.new_page(), []
        cells = "".join(f'<div class="jp-OutputArea-output">{markup}</div>' for markup in markups)
        page.set_content(f"<script>{get_plotlyjs()}</script><script>{LIBRARY}</script>{cells}")
        for width in widths:
            page.set_viewport_size({"width": width, "height": 1000})
            page.wait_for_timeout(300)
            wrong += [f"without a kernel, {width} pixels: {line}" for line in _at_rest(page)]
            if os.environ.get("ST_VI_SCREENSHOTS"):
                page.screenshot(path=SCREENSHOTS / f"{self.name}-twin-{width}.png", full_page=True)
        page.close()
        return wrong

    @contextmanager
    def changes(self, figure: int | None = None, selector: str | None = None, seconds: float = 120) -> Iterator[None]:
        """Wait, at the end of the block, until something has changed in the page and come to rest.

        The seconds from the last input in the block (a key, a click, the end of a lasso) to the last change in any
        output are written down, and must not be more than the limit; see `PROMISE`.

        Args:
            figure: Number of a plotly figure in the page: both its data and what is drawn must differ from before.
            selector: Or of the first element for a CSS selector: its HTML must.
            seconds: How long to wait after the block before it is an error.
        """
        assert (figure is None) != (selector is None), "name either a figure or a selector"
        look = self._look_at_figure(figure) if selector is None else self._look_at_element(selector)
        self._settle()
        before, changed, answer = look(), [False], None
        what = f"figure {figure} (data, drawing)" if selector is None else selector
        yield
        start = time.monotonic()
        # until the last step has arrived, not only the first, and nothing more has come while looking
        while not (all(changed) and answer and answer == self.evaluate("stVi.answered()")):
            self.check()
            spent = time.monotonic() - start
            assert spent < seconds, f"{self.name}: no lasting change of {what} in {seconds:.0f} s: {changed}"
            self.page.wait_for_timeout(50)
            if answer := self.evaluate("stVi.answered()"):
                changed = [old != new for old, new in zip(before, look(), strict=True)]
        self._write_down(answer / 1000)

    def _look_at_figure(self, figure: int) -> Callable[[], list]:
        self.page.locator(FIGURE).nth(figure).wait_for(state="attached")
        return lambda: self.evaluate("figure => [stVi.dataDigest(figure), stVi.drawnDigest(figure)]", figure)

    def _look_at_element(self, selector: str) -> Callable[[], list]:
        element = self.page.locator(f".jp-Notebook {selector}").first
        element.wait_for(state="attached")
        return lambda: [element.evaluate("element => element.innerHTML")]

    def _write_down(self, seconds: float) -> None:
        queue = os.getloadavg()[0] / (os.cpu_count() or 1)
        with ANSWERS.open("a", encoding="utf-8") as file:
            file.write(f"| {seconds:.2f} | {self.name} | {self.moved} | {queue:.1f} |\n")
        limit = 10 * PROMISE * max(1, queue)
        assert seconds < limit, f"{self.name}: {self.moved}: answered after {seconds:.2f} s, the limit is {limit:.1f}"

    def _settle(self) -> None:
        """Wait until the kernel is idle, all widgets are there, and nothing has changed for a moment."""
        self.page.wait_for_function("stVi.rests()", polling=100)

    def widths(self, figure: int) -> tuple[float, float]:
        """Width of what a figure has drawn, and of the output that it stands in, in pixels."""
        script = (
            "plot => [plot.querySelector('.main-svg').clientWidth, plot.closest('.jp-OutputArea-output').clientWidth]"
        )
        drawn, room = self.page.locator(FIGURE).nth(figure).evaluate(script)
        return drawn, room

    # What a hand can do

    def widen(self, width: int) -> None:
        """Give the window this width in pixels, and wait until the figures have followed it, if they do."""
        size = self.page.viewport_size
        self.page.set_viewport_size({"width": width, "height": size["height"] if size else 1000})
        for _ in range(20):
            self.page.wait_for_timeout(250)
            if self.evaluate("stViBoxes.figures().every(stViBoxes.fills)"):
                break
        self._settle()

    def _control(self, kinds: str, description: str) -> Locator:
        label = self.page.locator(".widget-label, .widget-label-basic", has_text=_exactly(description))
        controls = self.page.locator(f".jp-Notebook :is({kinds})")
        found = controls.filter(has=label).or_(
            controls.and_(self.page.locator("button", has_text=_exactly(description)))
        )
        found = found.filter(visible=True).first
        found.scroll_into_view_if_needed()
        return found

    def slide(
        self, description: str, key: str = "ArrowRight", presses: int = 1, handle: int = 0, beside: str = ""
    ) -> None:
        """Move a slider with the keyboard; `handle` 1 is the upper end of a range, `beside` names a check box."""
        self.moved = f"slider {description} {beside}" + f", {presses} times" * (presses > 1)
        slider = self._control(".widget-slider", description)
        if beside:
            box = self.page.locator(".widget-label, .widget-label-basic", has_text=_exactly(beside))
            slider = self.page.locator(".jp-Notebook .widget-hbox", has=box).last.locator(".widget-slider")
        control = slider.locator(".noUi-handle").nth(handle)
        control.focus()
        for _ in range(presses):
            self.page.keyboard.press(key)

    def toggle(self, description: str) -> None:
        """Click a check box or a toggle button."""
        self.moved = f"switch {description}"
        control = self._control(".widget-checkbox, .widget-toggle-button", description)
        box = control.locator("input")
        (box if box.count() else control).click()

    def select(self, description: str, option: str) -> None:
        """Choose in a dropdown, a list, toggle buttons or radio buttons."""
        self.moved = f"{description}: {option:.40}"
        control = self._control(".widget-dropdown, .widget-select, .widget-toggle-buttons, .widget-radio", description)
        menu = control.locator("select")
        if menu.count():
            menu.select_option(label=option)
        else:
            control.locator("button, .widget-radio-box label").filter(has_text=_exactly(option)).first.click()

    def fill(self, description: str, text: str) -> None:
        """Write in a text field, in place of what was there."""
        self.moved = f"{description}: {len(text)} letters"
        field = self._control(".widget-text, .widget-textarea", description).locator("input, textarea").first
        field.fill(text)
        field.press("Tab")

    def click_text(self, text: str) -> None:
        """Click what bears exactly this text in an output: a button, a token."""
        self.moved = f"click on {text}"
        outside_drawings = self.page.locator(":not(svg *)")
        self.page.locator(OUTPUT).get_by_text(text, exact=True).and_(outside_drawings).filter(
            visible=True
        ).first.click()

    def click_drawn(self, text: str) -> None:
        """Click one of plotly's own buttons."""
        self.moved = f"plotly's button {text}"
        self.page.locator(".updatemenu-button", has_text=_exactly(text)).click()

    def click_at(self, figure: int, x: float, y: float) -> None:
        """Click in a figure; fractions of the plot area from its upper left corner."""
        self.moved = f"click in figure {figure}"
        self._move(figure, x, y)
        self.page.wait_for_timeout(200)  # plotly learns what is under the mouse with a delay
        self.page.mouse.down()
        self.page.mouse.up()

    def lasso(self, figure: int, points: Sequence[tuple[float, float]]) -> None:
        """Draw a closed line in a figure whose drag mode is "lasso"; fractions as in `click_at`."""
        self.moved = f"lasso in figure {figure}"
        self._move(figure, *points[0])
        self.page.mouse.down()
        for x, y in [*points[1:], points[0]]:
            self._move(figure, x, y, steps=12)
        self.page.mouse.up()

    def _move(self, figure: int, x: float, y: float, steps: int = 1) -> None:
        area = self.page.locator(FIGURE).nth(figure).locator(".nsewdrag").first
        area.scroll_into_view_if_needed()
        box = area.bounding_box()
        self.page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=steps)

    def theme(self, name: str) -> None:
        """Turn JupyterLab "dark" or "light"."""
        self.evaluate("name => stVi.setTheme(name)", f"JupyterLab {name.title()}")
        self.page.wait_for_function("name => stVi.theme() === name", arg=f"JupyterLab {name.title()}")
        self._settle()

    def screenshot(self, name: str, always: bool = False) -> None:
        """An image of the whole notebook in the folder for screenshots, where ``ST_VI_SCREENSHOTS`` asks for them."""
        if not (always or os.environ.get("ST_VI_SCREENSHOTS")):
            return
        size = self.page.viewport_size
        height = int(self.evaluate("stVi.toTop()")) + 60
        self.page.set_viewport_size({"width": size["width"], "height": min(height, 12_000)})
        self._settle()
        self.evaluate("stVi.toTop()")
        self.page.locator(".jp-NotebookPanel").first.screenshot(path=SCREENSHOTS / f"{self.name}-{name}.png")
        self.page.set_viewport_size(size)
        self._settle()


def _at_rest(page: Page) -> list[str]:
    """What overlaps or is cut, even after plotly has had time to follow the width."""
    lines: list[str] = page.evaluate("stViBoxes.all()")
    for _ in range(8):
        if not lines:
            break
        page.wait_for_timeout(300)
        lines = page.evaluate("stViBoxes.all()")
    return lines


def _exactly(text: str) -> re.Pattern:
    return re.compile(rf"^\s*{re.escape(text)}\s*$")
