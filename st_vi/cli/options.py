"""Options of the commands: their types, and what they must not be."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer


def positive(value: float | None) -> float | None:
    """Refuse 0, less, and what is no number."""
    if value is not None and not 0 < value < math.inf:
        raise typer.BadParameter(f"{value} is not more than 0")
    return value


def finite(value: float) -> float:
    """Refuse what is no number."""
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no number to train with")
    return value


Labels = Annotated[list[str] | None, typer.Option("--label", help="value=name, such as 0=entailment; repeatable")]
Columns = Annotated[
    list[str] | None, typer.Option("--columns", help="role=name, such as premise=cau_a, for a column; repeatable")
]
Epochs = Annotated[float, typer.Option(callback=positive)]
Rate = Annotated[float, typer.Option(callback=positive)]
BatchSize = Annotated[int, typer.Option(min=1)]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="stop after so many steps, instead of --epochs")]
SaveSteps = Annotated[
    int | None, typer.Option(min=1, help="a checkpoint (and an evaluation) every so many steps, not every epoch")
]
BF16 = Annotated[bool | None, typer.Option(help="compute in bfloat16; as a rule where the GPU has it")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; else the best there is")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="replace the model and checkpoints that a training left in --output")
]
Resume = Annotated[bool, typer.Option(help="go on from the last checkpoint in --output")]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Refuse options that were given and would do nothing.

    Args:
        context: Of the command.
        why: Ends the sentence "--rows does nothing …".
        names: Parameters of the command.

    Raises:
        ValueError: One of them was given.
    """
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"{options[name]} does nothing {why}")


def pairs(option: str, values: Iterable[str] | None) -> dict[str, str]:
    """What was given as "a=b", repeated.

    Raises:
        ValueError: There is no "=", nothing on one side of it, or one left side twice.
    """
    found: dict[str, str] = {}
    for text in values or ():
        left, _, right = (part.strip() for part in text.partition("="))
        if not left or not right:
            raise ValueError(f"{option} wants two names with = between them, got {text!r}")
        if found.setdefault(left, right) != right:
            raise ValueError(f"{option}: {left!r} is given twice, as {found[left]!r} and as {right!r}")
    return found


def roles(values: Iterable[str] | None, *allowed: Iterable[str]) -> list[dict[str, str]]:
    """Columns by role, split among those who read them.

    Raises:
        ValueError: A role that nobody has.
    """
    given = pairs("--columns", values)
    known = [role for group in allowed for role in group]
    if unknown := [role for role in given if role not in known]:
        raise ValueError(f"--columns: there is no role {unknown[0]!r} here; the roles are {', '.join(known)}")
    return [{role: name for role, name in given.items() if role in group} for group in allowed]


def use_device(name: str | None) -> str | None:
    """Make sure that a device is there. Call it before torch is imported: a number hides all other GPUs.

    Returns:
        What to call the device from now on.

    Raises:
        ValueError: There is none of this name.
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
        raise ValueError(f"--device {name}: no such device; give cpu, cuda, cuda:1 or mps")
    import torch

    if (kind == "cuda" and not torch.cuda.is_available()) or (kind == "mps" and not torch.mps.is_available()):
        raise ValueError(f"--device {name}: torch finds none here")
    return kind


def training_options(
    max_steps: int | None, save_steps: int | None, bf16: bool | None, device: str | None, evaluated: bool
) -> dict[str, Any]:
    """Stock training arguments for what was given; what was not keeps the recipe's defaults."""
    arguments: dict[str, Any] = {}
    if max_steps is not None:
        arguments["max_steps"] = max_steps
    if save_steps is not None:
        arguments |= {"save_strategy": "steps", "save_steps": save_steps}
        if evaluated:  # the best checkpoint is among those that were evaluated
            arguments |= {"eval_strategy": "steps", "eval_steps": save_steps}
    if bf16 is not None:
        arguments["bf16"] = bf16
    if device == "cpu":
        arguments["use_cpu"] = True
    return arguments


def loading_options(bf16: bool | None, device: str | None) -> dict[str, Any]:
    """Arguments of `load` for what was given."""
    arguments: dict[str, Any] = {"device": device} if device else {}
    if bf16 is not None:
        arguments["model_kwargs"] = {"dtype": "bfloat16" if bf16 else "float32"}
    return arguments


def how_to_resume(output: Path) -> str:
    """What to do after a training was interrupted."""
    steps = [
        int(folder.name.rpartition("-")[2])
        for folder in output.glob("checkpoint-*")
        if (folder / "trainer_state.json").is_file() and folder.name.rpartition("-")[2].isdecimal()
    ]
    if steps:
        return f"the same command with --resume goes on from {output / f'checkpoint-{max(steps)}'}"
    return "there is no checkpoint yet, and the same command with --resume begins anew; --save-steps saves sooner"
