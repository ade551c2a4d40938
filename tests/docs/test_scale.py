"""The page on scale shows what its commands print. ``ST_VI_ACCEPT_PLAN=1`` writes the outputs anew."""

from __future__ import annotations

import os
import re
import shlex

import pytest
from typer.testing import CliRunner

from st_vi.__main__ import app
from tests.docs.conftest import DOCS

PAGE = DOCS / "scale.md"
PAIR = re.compile(r"```bash\n(python -m st_vi plan .*?)\n```\n\n```\{\.text \.output\}\n(.*?)```", re.DOTALL)


def printed(command: str) -> str:
    arguments = shlex.split(command.replace("\\\n", " "))[3:]
    run = CliRunner().invoke(app, arguments)
    assert run.exit_code == 0, run.output
    return run.stdout


@pytest.mark.slow
def test_the_page_shows_what_the_commands_print():
    text = PAGE.read_text(encoding="utf-8")
    pairs = PAIR.findall(text)
    assert len(pairs) == text.count("-m st_vi plan") >= 5
    if os.environ.get("ST_VI_ACCEPT_PLAN"):
        block = "```bash\n{0}\n```\n\n```{{.text .output}}\n{1}```"
        PAGE.write_text(PAIR.sub(lambda found: block.format(found[1], printed(found[1])), text), encoding="utf-8")
    for command, output in PAIR.findall(PAGE.read_text(encoding="utf-8")):
        assert printed(command) == output
