"""`execute` runs a notebook and then a test's code in its kernel; `open_notebook` opens it in a real JupyterLab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import warm
from tests.notebooks.lab import running_lab

ROOT = Path(__file__).parent.parent.parent
SITE = ROOT / "docs" / "_site"
FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


def script_of(name: str | Path) -> Path:
    """The source of a notebook; the path of a script elsewhere stands for itself."""
    return name if isinstance(name, Path) else ROOT / "notebooks" / f"{name}.py"


@pytest.fixture(scope="package")
def kernel_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Offline; one thread; the checkout's own st_vi. Where example models are kept, it has from `tests.conftest`.

    Kernels are forked from one process that has imported everything: see `tests.notebooks.warm`.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false"}
    own = {**offline, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PLOTLY_RENDERER": "plotly_mimetype"}
    folder = tmp_path_factory.mktemp("kernels")
    place = folder / "socket"
    warm.kernel_spec(folder, str(place))
    command = [sys.executable, "-m", "tests.notebooks.warm", "serve", str(place)]
    server = subprocess.Popen(command, env={**os.environ, **own}, cwd=ROOT)
    end = time.monotonic() + warm.START
    while not place.exists():
        assert server.poll() is None and time.monotonic() < end, "no kernel can be started"
        time.sleep(0.1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield {**own, "JUPYTER_PATH": str(folder)}
    server.kill()
    server.wait()


@pytest.fixture
def execute(kernel_environment: dict[str, str], tmp_path: Path) -> Callable[[str | Path, str], Any]:
    """Run all cells of a notebook, then the code in the same kernel; returns the executed notebook."""
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from nbformat.v4 import new_code_cell

    from notebooks.pair import notebook_of

    def run(name: str | Path, code: str = "") -> Any:
        notebook = notebook_of(script_of(name))
        notebook.cells.append(new_code_cell(code, id="test"))
        client = nbclient.NotebookClient(
            notebook,
            timeout=900,  # seconds a cell: the machine may be busy
            kernel_name="python3",
            store_widget_state=False,  # five megabytes of script a figure
            resources={"metadata": {"path": str(tmp_path)}},
        )
        try:
            client.execute(env={**os.environ, **kernel_environment})
        except nbclient.exceptions.CellExecutionError as error:
            plain = re.sub(r"\x1b\[[\d;]*m", "", str(error))
            raise pytest.fail.Exception(plain, pytrace=False) from None
        if isinstance(name, str):
            keep_for_the_site(notebook, script_of(name))
        return notebook

    return run


def keep_for_the_site(notebook: Any, script: Path) -> None:
    """The site shows notebooks with their outputs: so that the tests of the site need not run them again."""
    if str(SITE) not in sys.path:
        sys.path.insert(0, str(SITE))
    from notebook_pages import keep

    keep(type(notebook)({**notebook, "cells": notebook.cells[:-1]}), script)


@pytest.fixture(scope="package")
def lab(browser: Any, kernel_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One JupyterLab for all tests; after the browser, so that nothing starts where that is missing."""
    pytest.importorskip("jupyterlab")
    from tests.notebooks.driver import ANSWERS

    ANSWERS.parent.mkdir(exist_ok=True)
    ANSWERS.write_text("| seconds | notebook | control | load / CPUs |\n|---|---|---|---|\n", encoding="utf-8")
    with running_lab(tmp_path_factory.mktemp("lab"), kernel_environment) as lab:
        yield lab


@pytest.fixture
def open_notebook(request: pytest.FixtureRequest, browser: Any, lab: Any) -> Iterator[Callable[[str | Path], Any]]:
    """Open a notebook and run its cells; the end of the test fails on whatever went wrong in page or kernel."""
    from notebooks.pair import text_of
    from tests.notebooks.driver import SCREENSHOTS, OpenNotebook

    page = browser.new_page(viewport={"width": 1500, "height": 1200})
    page.set_default_timeout(120_000)
    opened = []

    def open_(name: str | Path, **shorter: str) -> OpenNotebook:
        """Open it; `shorter` names code and what takes its place, where `execute` has seen the whole of it."""
        script = script_of(name)
        text = text_of(script)
        for code, instead in shorter.items():
            assert code in text, f"{name} has no {code} any more"
            text = text.replace(code, instead)
        (lab.root / f"{script.stem}.ipynb").write_text(text, encoding="utf-8")  # Lab saves: on a copy
        opened.append(OpenNotebook(page, lab, script.stem))
        return opened[-1]

    try:
        yield open_
        for notebook in opened:
            notebook.finish()
    finally:
        if request.node.stash.get(FAILED, False) and page.url != "about:blank":
            SCREENSHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{request.node.name}-failed.png")
        page.close()
        lab.tidy()
