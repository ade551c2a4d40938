"""Types and checks of command-line options."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from st_vi.files.lines import on_disk

_SMALLEST, _LARGEST = 1e-37, 1e12  # below, float32 has 0; above, libraries overflow


class Command(TyperCommand):
    """A command whose options take no number that is infinite, NaN, or too large or too small to compute with."""

    def invoke(self, ctx: Any) -> Any:
        """Check the numbers of all options, then run the command."""
        parameter: Any  # typer's own class, or click's
        for parameter in self.params:
            value = ctx.params.get(parameter.name)
            for number in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(number, (int, float)) and number and not _SMALLEST <= abs(number) <= _LARGEST:
                    problem = f"{number!s:.24} is out of range: numbers are 0 or between {_SMALLEST:g} and {_LARGEST:g}"
                    raise typer.BadParameter(problem, ctx, parameter)
        return super().invoke(ctx)


def positive(value: float | None) -> float | None:
    """Reject values that are not more than 0."""
    if value is not None and not value > 0:
        raise typer.BadParameter(f"{value} is not more than 0")
    return value


def folder(path: str | Path) -> Path:
    """The folder of an option. "" is none: as a path, it would be the current folder where a variable is not set."""
    if not str(path).strip():
        raise typer.BadParameter("the name of the folder is empty")
    if (found := on_disk(path)).is_file():
        raise typer.BadParameter(f"{str(path)!r} is a file")
    return found


Labels = Annotated[list[str] | None, typer.Option("--label", help="value=name, such as 0=entailment; repeatable")]
Columns = Annotated[
    list[str] | None, typer.Option("--columns", help="role=column, such as premise=cau_a or anchor=cau_a; repeatable")
]
Epochs = Annotated[float, typer.Option(callback=positive)]
Rate = Annotated[float, typer.Option(callback=positive)]
BatchSize = Annotated[int, typer.Option(min=1)]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="number of steps, instead of --epochs")]
SkipBadImages = Annotated[bool, typer.Option("--skip-bad-images", help="skip rows whose image cannot be read")]
SaveSteps = Annotated[
    int | None, typer.Option(min=1, help="save (and evaluate) every so many steps instead of every epoch")
]
BF16 = Annotated[bool | None, typer.Option(help="compute in bfloat16; default: if the GPU supports it")]
LoadBF16 = Annotated[bool | None, typer.Option(help="load the weights in bfloat16 or float32; default: as saved")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1)]  # as NumPy's
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; default: the best available")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace the model and checkpoints of an earlier run in --output")
]
Resume = Annotated[bool, typer.Option(help="continue from the last checkpoint in --output")]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Reject parameters of a command that were set but would have no effect, and say why."""
    parameters = {parameter.name: parameter for parameter in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = parameters[name]
            written = option.secondary_opts if context.params[name] is False else option.opts  # "--no-words"
            raise ValueError(f"{(written or option.opts)[0]} does nothing {why}")


def pairs(option: str, values: Iterable[str] | None) -> dict[str, str]:
    """Parse repeated options of the form "a=b"."""
    found: dict[str, str] = {}
    for text in values or ():
        left, _, right = (part.strip() for part in text.partition("="))
        if not left or not right:
            raise ValueError(f"{option} must be two names joined by =, got {text!r}")
        if found.setdefault(left, right) != right:
            raise ValueError(f"{option}: {left!r} is given twice, as {found[left]!r} and as {right!r}")
    return found


def roles(values: Iterable[str] | None, *allowed: Iterable[str]) -> list[dict[str, str]]:
    """Parse --columns, and split it by the groups of roles."""
    given = pairs("--columns", values)
    known = [role for group in allowed for role in group]
    if unknown := [role for role in given if role not in known]:
        raise ValueError(f"--columns: there is no role {unknown[0]!r} here; the roles are {', '.join(known)}")
    return [{role: name for role, name in given.items() if role in group} for group in allowed]


def use_device(name: str | None) -> str | None:
    """Check that a device exists, and return its name from then on: a GPU number hides all other GPUs.

    Call it before torch is imported.
    """
    if name is None:
        return None
    kind, _, number = name.partition(":")
    if kind == "cuda" and number.isdecimal():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else None
        if gpus and int(number) >= len(gpus):
            raise ValueError(f"--device {name}: there are {len(gpus)} GPUs here")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(number)] if gpus else number
    elif number or kind not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device {name}: no such device; use cpu, cuda, cuda:1 or mps")
    import torch

    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.mps.is_available()):
        raise ValueError(f"--device {name}: torch finds none here")
    return kind


def training_options(
    max_steps: int | None, save_steps: int | None, bf16: bool | None, device: str | None, evaluated: bool
) -> dict[str, Any]:
    """Stock training arguments for the options that were set; the others keep the defaults of the recipe."""
    arguments: dict[str, Any] = {}
    if max_steps is not None:
        arguments["max_steps"] = max_steps
    if save_steps is not None:
        arguments |= {"save_strategy": "steps", "save_steps": save_steps}
        if evaluated:  # only evaluated checkpoints can be the best
            arguments |= {"eval_strategy": "steps", "eval_steps": save_steps}
    if bf16 is not None:
        arguments["bf16"] = bf16
    if device == "cpu":
        arguments["use_cpu"] = True
    return arguments


def loading_options(bf16: bool | None, device: str | None) -> dict[str, Any]:
    """Arguments of `load` for the options that were set."""
    arguments: dict[str, Any] = {"device": device} if device else {}
    if bf16 is not None:
        arguments["model_kwargs"] = {"dtype": "bfloat16" if bf16 else "float32"}
    return arguments


def how_to_resume(output: Path, overwrite: bool = False) -> str:
    """How to resume an interrupted training run."""
    option = "--resume in place of --overwrite" if overwrite else "--resume"
    if steps := _steps(output):
        return f"run the same command with {option} to continue from {output / f'checkpoint-{max(steps)}'}"
    return f"no checkpoint yet: the same command with {option} starts from scratch; --save-steps saves more often"


def say_if_from_scratch(output: Path, resume: bool) -> None:
    """Say if there is nothing to resume, as after a typing error in --output."""
    if resume and not _steps(output):
        typer.echo(f"no checkpoint in {output}: training starts from scratch", err=True)


def _steps(output: Path) -> list[int]:
    """Steps of the checkpoints."""
    return [
        int(folder.name.rpartition("-")[2])
        for folder in output.glob("checkpoint-*")
        if (folder / "trainer_state.json").is_file() and folder.name.rpartition("-")[2].isdecimal()
    ]
