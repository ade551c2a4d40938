"""`open_notebook` runs a notebook in a real JupyterLab, once for all tests of a file; `opened` is its page."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.notebooks import warm
from tests.notebooks.lab import running_lab

ROOT = Path(__file__).parent.parent.parent
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
    own = {**offline, "PYTHONPATH": str(ROOT), "PLOTLY_RENDERER": "plotly_mimetype"}
    folder = tmp_path_factory.mktemp("kernels")
    place = folder / "socket"
    warm.kernel_spec(folder, str(place))
    command = [sys.executable, "-m", "tests.notebooks.warm", "serve", str(place)]
    server = subprocess.Popen(command, env={**os.environ, **own}, cwd=ROOT)  # imports while JupyterLab starts
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(folder))
        yield {**own, "JUPYTER_PATH": str(folder)}
    server.kill()
    server.wait()


@pytest.fixture(scope="package")
def lab(browser: Any, kernel_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One JupyterLab for all tests; after the browser, so that nothing starts where that is missing."""
    pytest.importorskip("jupyterlab")
    from tests.notebooks.driver import ANSWERS

    ANSWERS.parent.mkdir(exist_ok=True)
    ANSWERS.write_text("| seconds | notebook | control | load / CPUs |\n|---|---|---|---|\n", encoding="utf-8")
    with running_lab(tmp_path_factory.mktemp("lab"), kernel_environment) as lab:
        yield lab


@pytest.fixture(scope="module")
def open_notebook(
    request: pytest.FixtureRequest, kernel_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str | Path], Any]]:
    """Open a notebook and run its cells, once for all tests of a file: in JupyterLab, where there is a browser."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    from notebooks.run import keep
    from tests.notebooks.headless import headless

    with ExitStack() as stack:

        def open_(name: str | Path) -> Any:
            script = script_of(name)
            try:
                lab = request.getfixturevalue("lab")
            except pytest.skip.Exception:
                folder = tmp_path_factory.mktemp(script.stem)
                notebook = stack.enter_context(headless(script, folder, kernel_environment))
            else:
                notebook = stack.enter_context(in_the_lab(script, lab, request.getfixturevalue("browser")))
            if isinstance(name, str):
                keep(notebook.content(), script)  # so that the tests of the site need not run it again
            return notebook

        yield open_


@pytest.fixture(scope="module")
def notebook(request: pytest.FixtureRequest, open_notebook: Callable[[str | Path], Any]) -> Any:
    """The notebook that a file of tests is named after, run."""
    return open_notebook(request.path.stem.removeprefix("test_"))


@contextmanager
def in_the_lab(script: Path, lab: Any, browser: Any) -> Iterator[Any]:
    """The notebook in a page of its own; its kernel ends with the block."""
    from notebooks.pair import text_of
    from tests.notebooks.driver import WIDE, OpenNotebook

    (lab.root / f"{script.stem}.ipynb").write_text(text_of(script), encoding="utf-8")  # Lab saves: on a copy
    shutil.copytree(ROOT / "notebooks" / "pictures", lab.root / "pictures", dirs_exist_ok=True)
    page = browser.new_page(viewport={"width": WIDE, "height": 1200})
    page.set_default_timeout(120_000)
    try:
        with OpenNotebook(page, lab, script.stem) as notebook:
            yield notebook
    finally:
        page.close()
        lab.tidy()


@pytest.fixture
def opened(request: pytest.FixtureRequest, notebook: Any) -> Iterator[Any]:
    """The page of the file's `notebook`; the end of the test fails on whatever went wrong in page or kernel."""
    from tests.notebooks.headless import HeadlessNotebook

    if isinstance(notebook, HeadlessNotebook):
        pytest.skip("no chromium on the PATH: apt-get install chromium-headless-shell")
    try:
        yield notebook
        notebook.finish()
    finally:
        if request.node.stash.get(FAILED, False):
            notebook.screenshot(f"{request.node.name}-failed", always=True)
