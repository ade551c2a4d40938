"""What README says, it does: its Python runs, on a tiny model, and CI runs its test command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run_in_order(tiny_base, tmp_path):
    stands_for = {
        "FacebookAI/xlm-roberta-large": tiny_base,
        "Qwen/Qwen2-VL-2B-Instruct": save_tiny_qwen2_vl(tmp_path / "qwen"),
        "pho.jpg": tmp_path / "pho.jpg",
        "outputs/": f"{tmp_path}/",
    }
    Image.new("RGB", (112, 112), "brown").save(tmp_path / "pho.jpg")
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    names: dict = {}
    for block in blocks:
        for name, stand_in in stands_for.items():
            block = block.replace(name, str(stand_in))
        exec(compile(block, "README.md", "exec"), names)
    assert names["embeddings"].shape == (3, 1024)


@pytest.mark.skipif(not (ROOT / ".ci").exists(), reason="not in a checkout")
def test_ci_runs_the_test_command_of_the_readme():
    commands = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert len(commands) == 2
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert commands[1] in map(str.strip, run.splitlines())
