"""The code of a model card, run."""

from __future__ import annotations

import contextlib
import io
import re

import torch


def card(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def run_code(folder):
    """Run all Python of the card: its names, what it printed, and what the card says that it prints."""
    blocks = re.findall(r"```python\n(.*?)```", card(folder), re.DOTALL)
    assert blocks
    told, names = io.StringIO(), {}
    with contextlib.redirect_stdout(told):
        for code in blocks:
            exec(compile(code, str(folder / "README.md"), "exec"), names)
    said = "\n".join(line[2:] for line in blocks[0].splitlines() if re.match(r"# (tensor|\s+\[)", line))
    return names, told.getvalue(), said


def check(folder):
    names, told, said = run_code(folder)
    assert len(names["embeddings"]) == len(names["similarities"]) == 3
    printed = [float(number) for number in re.findall(r"-?\d+\.\d+", told)]
    expected = [float(number) for number in re.findall(r"-?\d+\.\d+", said)]
    assert len(printed) == 9 and torch.allclose(torch.tensor(printed), torch.tensor(expected), atol=0.02)  # JPEG
    assert "NoneType" not in card(folder) and "sentence_transformers_model_id" not in card(folder)
    return names
