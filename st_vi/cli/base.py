"""The model that a training starts from."""

from __future__ import annotations

from typing import Any

import typer

from st_vi.cli.options import refuse


def trained_base(context: typer.Context, base: str, *options: str) -> Any:
    """Load `base` to continue its training if it has trained parts besides its encoder; otherwise return None.

    The options are those that apply only to a new model: it is an error to set one for another.
    """
    from st_vi.hub import load
    from st_vi.recipes.base_models import ADAPTER, trained_parts

    if not (parts := trained_parts(base)):
        return None
    refuse(context, f"with --base {base}, which is a trained model with its own {', '.join(parts)}", *options)
    typer.echo(f"{base} is a trained model: continuing its training, with its own {', '.join(parts)}")
    model = load(base)
    if ADAPTER in parts:
        model.set_adapter("default")  # a loaded adapter is frozen
    return model
