"""What the pages say, it does: their Python runs, page by page, and the commands they name exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from st_vi.__main__ import app
from tests.docs.conftest import DOCS, NO_RUN, OUTPUT, PAGES, ROOT, RUN, SHELL, Block, blocks

TESTED = (RUN, NO_RUN, OUTPUT, SHELL)
FENCES = {*TESTED, "text", "bibtex"}


def name(value: object) -> str:
    return str(value.relative_to(ROOT)) if isinstance(value, Path) else str(value)


def fences(page: Path) -> list[str]:
    return re.findall(r"^\s*```(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == DOCS and list(blocks(page, RUN))], ids=name)
def test_python_blocks_run_in_order(page, stands_for, workplace, capsys):
    """In English; the Vietnamese pages have the same code, as test_vietnamese.py says."""
    names = {"__name__": page.stem}
    for block in blocks(page, RUN):
        code = block.code
        for hub_name, folder in stands_for.items():
            code = code.replace(hub_name, folder)
        exec(block.compiled(code), names)
    printed = capsys.readouterr().out
    for output in blocks(page, OUTPUT):
        assert output.code in printed, output


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_escapes_these_tests(page):
    """A misspelt fence would be shown and never run."""
    assert set(fences(page)) <= FENCES
    found = [block for kind in TESTED for block in blocks(page, kind)]
    assert len(found) == sum(fence in TESTED for fence in fences(page)), "an indented or unclosed block"


@pytest.mark.parametrize("block", [block for page in PAGES for block in blocks(page, NO_RUN)], ids=name)
def test_blocks_that_do_not_run_compile_and_import_what_exists(block):
    block.compiled()
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("st_vi"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, imported.name) for imported in node.names)


def test_most_blocks_run():
    pages = [page for page in PAGES if page.parent == DOCS]
    ran, not_run = (sum(1 for page in pages for _ in blocks(page, kind)) for kind in (RUN, NO_RUN))
    assert ran >= 40 and not_run <= ran / 4


def commands(block: Block) -> list[list[str]]:
    """The arguments of every ``python -m st_vi`` in a block."""
    lines = block.code.replace("\\\n", " ").splitlines()
    calls = (re.split(r"-m st_vi\b", part)[1] for line in lines for part in line.split("&&") if "-m st_vi" in part)
    return [shlex.split(call, comments=True) for call in calls]


COMMANDS = [
    (str(block), arguments)
    for page in [ROOT / "README.md", *PAGES]
    for block in blocks(page, SHELL)
    for arguments in commands(block)
]


@pytest.mark.parametrize(("where", "arguments"), COMMANDS, ids=[f"{where}-{' '.join(a)}" for where, a in COMMANDS])
def test_commands_parse(where, arguments):
    """As the command line parses them: every option exists, no required one is missing, every choice is one."""
    command, path = typer.main.get_command(app), []
    context = command.make_context("st_vi", list(arguments) or ["--help"])
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        path.append(rest[0])
        command = command.commands[rest[0]]
        context = command.make_context(rest[0], rest[1:], parent=context)
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0


# Messages of sentence-transformers, transformers and torch.
FOREIGN = {"requires: st-vi", "pooler.dense.weight | MISSING", "index out of range"}


def test_messages_that_the_faq_quotes_are_those_that_a_reader_sees():
    """A reader searches for the message."""
    quoted = set(re.findall(r'^#+ .*?"(.+?)"', (DOCS / "faq.md").read_text(encoding="utf-8"), re.MULTILINE))
    ours = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "st_vi").rglob("*.py"))
    assert quoted >= FOREIGN and not [message for message in quoted - FOREIGN if message not in ours]


def test_commands_are_found():
    assert {arguments[0] for _, arguments in COMMANDS} >= {"demo", "train", "evaluate", "encode", "ablate", "search"}
