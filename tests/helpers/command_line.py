"""The commands as a user types them."""

from __future__ import annotations

from typer.testing import CliRunner

from st_vi.__main__ import app


def st_vi(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
