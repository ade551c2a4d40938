"""What the pages of the documentation find when their code runs: an empty folder, and small stand-ins for the hub.

And the site itself, built once.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from st_vi import build_viclsr
from tests.docs.site import NOTHING_TO_FIND, served
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("vi/*.md")])

RECORDS = ROOT / ".cache" / "site"  # times and screenshots, for a person to look at

RUN, NO_RUN, OUTPUT, SHELL = "python", "{.python .no-run}", "{.text .output}", "bash"


@dataclass(frozen=True)
class Block:
    """A fenced block: its code, and the line of the page on which it begins."""

    page: Path
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def compiled(self, code: str | None = None):
        """Compiled so that a traceback names the line of the page."""
        padded = "\n" * (self.line - 1) + (self.code if code is None else code)
        return compile(padded, str(self.page), "exec", dont_inherit=True)


def blocks(page: Path, kind: str) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```{re.escape(kind)}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1])


@pytest.fixture(scope="session")
def stands_for(tiny_base, tmp_path_factory) -> dict[str, str]:
    return {
        "FacebookAI/xlm-roberta-large": str(tiny_base),
        "Qwen/Qwen2-VL-2B-Instruct": str(save_tiny_qwen2_vl(tmp_path_factory.mktemp("qwen"))),
    }


@pytest.fixture
def workplace(tiny_base, tmp_path, monkeypatch) -> Path:
    """The current folder, with what a page may take as given: an image, and two models that were saved before."""
    Image.new("RGB", (112, 112), "brown").save(tmp_path / "pho.jpg")
    for saved in ("outputs/demo/model", "outputs/viclsr"):
        build_viclsr(tiny_base).save_pretrained(str(tmp_path / saved))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Site:
    """A built site that is being served: twice, as only the search needs its index, which costs every page time."""

    folder: Path
    root: str
    with_search: str
    seconds: float

    def pages(self) -> list[str]:
        """Their addresses below the root."""
        files = sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*.html"))
        return [file.removesuffix("index.html") for file in files]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs", reason='pip install "st-vi[docs]"')
    pytest.importorskip("nbclient", reason='pip install "st-vi[docs]"')
    folder, start = tmp_path_factory.mktemp("site"), time.monotonic()
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={"ST_VI_DOCS_NOTEBOOKS": "1", **os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    seconds = time.monotonic() - start
    with served(folder) as whole, served(folder, {"/search/search_index.json": NOTHING_TO_FIND.encode()}) as root:
        yield Site(folder, root, whole, seconds)


@pytest.fixture(scope="session")
def readers(browser):
    """Each opens pages one after another, and keeps scripts, fonts and its colour scheme from page to page."""
    contexts = {scheme: browser.new_context(color_scheme=scheme) for scheme in ("light", "dark")}
    yield contexts
    for context in contexts.values():
        context.close()


@pytest.fixture
def reader(readers):
    return readers["light"]


def write_record(name: str, content: bytes) -> None:
    RECORDS.mkdir(parents=True, exist_ok=True)
    (RECORDS / ".gitignore").write_text("*\n", encoding="utf-8")
    (RECORDS / name).write_bytes(content)
