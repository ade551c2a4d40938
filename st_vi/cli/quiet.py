"""Suppression of the progress bars of other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from st_vi.stock.messages import warnings_in_one_line


def one_bar(context: typer.Context) -> None:
    """Hide the progress bars of other libraries until the command ends. Downloads are shown, and warnings in one line.

    Call it after checking the options, because it imports these libraries.
    """
    context.with_resource(_without_bars_of_libraries())
    context.with_resource(warnings_in_one_line())


@contextmanager
def _without_bars_of_libraries() -> Iterator[None]:
    """Hide the bars of `datasets` (reading, filtering) and transformers (loading and saving of weights)."""
    import datasets
    from huggingface_hub import utils as hub
    from transformers.utils import logging

    of_datasets, of_transformers = datasets.are_progress_bars_disabled(), not logging.is_progress_bar_enabled()
    of_downloads = hub.are_progress_bars_disabled()  # type: ignore[attr-defined]  # transformers switches these too
    restore_downloads = hub.disable_progress_bars if of_downloads else hub.enable_progress_bars  # type: ignore[attr-defined]
    datasets.disable_progress_bars()
    logging.disable_progress_bar()
    restore_downloads()
    try:
        yield
    finally:
        if not of_datasets:
            datasets.enable_progress_bars()
        if not of_transformers:
            logging.enable_progress_bar()
        restore_downloads()
