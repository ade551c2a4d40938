"""What README says, it does: its Python runs, on a tiny model, and CI runs its test command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(tiny_base, tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        code = block.replace("FacebookAI/xlm-roberta-large", str(tiny_base)).replace("outputs/", f"{tmp_path}/")
        exec(compile(code, "README.md", "exec"), names)
    assert names["embeddings"].shape == (3, 32)


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="not in a checkout")
def test_ci_runs_the_test_command_of_the_readme():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
