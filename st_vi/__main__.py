"""The command line: ``python -m st_vi demo | train | evaluate | encode | search | trim | distill | ablate | plan``."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Annotated, Any

import typer

from st_vi.cli import ablate, demo, distil, encode, evaluate, plan, search, sight, train
from st_vi.cli.common import InterruptedRun
from st_vi.cli.options import Command
from st_vi.stock.messages import open_streams
from st_vi.stock.signals import handled

# On a full disk, torch and safetensors raise no OSError, and do not name the file.
_NOT_WRITTEN = "a file could not be written, most likely because the disk is full"

app = typer.Typer(help="Vietnamese embeddings for sentence-transformers.", no_args_is_help=True, add_completion=False)
app.command(cls=Command)(demo.demo)
train_app = typer.Typer(help="Train one of the systems.", no_args_is_help=True)
train_app.command(cls=Command)(train.viclsr)
train_app.command(cls=Command)(train.vipolyqwen)
app.add_typer(train_app, name="train")
app.command(cls=Command)(evaluate.evaluate)
app.command(cls=Command)(encode.encode)
app.command(cls=Command)(search.search)
app.command(cls=Command)(distil.trim)
distill_app = typer.Typer(help="Distil a small model from a large one.", no_args_is_help=True)
distill_app.command("encoder", cls=Command)(distil.distill)
distill_app.command("vipolyqwen", cls=Command)(sight.distill_vipolyqwen_command)
app.add_typer(distill_app, name="distill")
ablate_app = typer.Typer(help="Measure the contribution of each part.", no_args_is_help=True)
ablate_app.command("vipolyqwen", cls=Command)(ablate.ablate_vipolyqwen)
app.add_typer(ablate_app, name="ablate")
plan_app = typer.Typer(help="Whether it fits into memory, and how long it takes.", no_args_is_help=True)
plan_app.command(cls=Command)(plan.train)
plan_app.command(cls=Command)(plan.encode)
app.add_typer(plan_app, name="plan")


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"st-vi {version_of('st-vi')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Vietnamese embeddings for sentence-transformers."""


def _fail(message: str) -> None:
    typer.secho(f"error: {' '.join(message.split())}", fg=typer.colors.RED, err=True)
    sys.exit(2)


def main() -> None:
    """Run the command line. Bad input exits with code 2 and a one-line message, Ctrl-C with code 130.

    SIGTERM (docker stop, systemd) and SIGHUP (a closed terminal) end it as Ctrl-C does, with codes 143 and 129.
    """
    asked: signal.Signals | None = None

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        asked = signal.Signals(number)
        raise KeyboardInterrupt

    def command() -> Any:
        try:
            return app(standalone_mode=False)
        except ImportError as error:
            if asked is None:
                raise
            raise KeyboardInterrupt from error  # which a library that was being imported has turned into this

    open_streams()
    with handled(stop):
        code = _run(command)
    # Where the exception went through code that was compiled from a text, as that of dataclasses, Python ends the
    # process by SIGINT at the very last, whatever the code; running such code once more makes it forget that.
    exec("")
    sys.exit(128 + (asked or signal.SIGINT) if code == 130 else code)


def _run(command: Callable[[], Any]) -> int:
    """Run the command, and return its exit code."""
    go_on = "nothing was written; run the same command to start again"
    try:
        code = command()
    except (ValueError, OSError, ImportError) as error:
        _fail(str(error))
    except (MemoryError, RuntimeError) as error:
        if re.search("inline_container|failed writing file", str(error)):  # torch.save
            _fail(f"{_NOT_WRITTEN} ({error})")
        if not isinstance(error, MemoryError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        _fail(f"out of memory: smaller batches or inputs need less ({error})")
    except InterruptedRun as error:
        code, go_on = 130, str(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            _fail(f"{_NOT_WRITTEN} ({error})")
        if not hasattr(error, "format_message"):  # raised by typer for invalid options
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # show the help
            typer.echo(str(error.format_message() or ""), err=True)
            sys.exit(2)
        _fail(error.format_message())
    if code == 130:  # typer also turns Ctrl-C into this
        typer.echo(f"\ninterrupted: {go_on}", err=True)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
