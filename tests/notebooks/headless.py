"""A notebook that has run without a page, where there is no browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbclient
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from notebooks.pair import notebook_of


def fail_with(traceback: str) -> None:
    """Fail the test with what a kernel has said."""
    raise pytest.fail.Exception(re.sub(r"\x1b\[[\d;]*m", "", traceback), pytrace=False) from None


@contextmanager
def headless(script: Path, folder: Path, environment: Mapping[str, str]) -> Iterator[HeadlessNotebook]:
    """Run a notebook; its kernel ends with the block.

    Args:
        script: Its source.
        folder: Where it runs.
        environment: What the kernel finds besides the environment of this process.
    """
    client = nbclient.NotebookClient(
        notebook_of(script),
        timeout=900,  # seconds a cell: the machine may be busy
        kernel_name="python3",
        store_widget_state=False,  # five megabytes of script a figure
        resources={"metadata": {"path": str(folder)}},
    )
    with client.setup_kernel(env={**os.environ, **environment}):
        yield HeadlessNotebook(client)


class HeadlessNotebook:
    """A notebook whose cells have all run, with its kernel.

    Args:
        client: With a running kernel and a notebook that has not been run.
    """

    def __init__(self, client: nbclient.NotebookClient) -> None:
        self.client, self.own = client, len(client.nb.cells)
        for number in range(self.own):
            self._run(number)

    def execute(self, code: str) -> None:
        """Run code in the kernel; an error there fails the test."""
        self.client.nb.cells.append(new_code_cell(code))
        self._run(len(self.client.nb.cells) - 1)

    def _run(self, number: int) -> None:
        try:
            self.client.execute_cell(self.client.nb.cells[number], number)
        except nbclient.exceptions.CellExecutionError as error:
            fail_with(str(error))

    def content(self) -> NotebookNode:
        """The notebook with its outputs."""
        return NotebookNode({**self.client.nb, "cells": self.client.nb.cells[: self.own]})
