"""The parameters of the learned terms of `DLELoss`."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from safetensors.torch import load, save
from torch import nn

from st_vi.losses.blocks import parameters_of, with_parameters
from st_vi.tasks import Task


class LearnedParameters(nn.ParameterDict):
    """The parameters of learned terms, by the names of their components.

    Attributes:
        started: Whether `start` was called.
    """

    started = False

    def start(self) -> None:
        """Say that the parameters will be kept and trained, as `LossKeeper` does in the trainer."""
        self.started = True

    def step(self) -> None:
        """Nothing to do after an optimizer step."""

    def check_ready(self) -> None:
        """Check that the parameters will be kept.

        Raises:
            ValueError: `start` was not called.
        """
        if not self.started:
            raise ValueError(
                f"{next(iter(self))} has parameters to train: give the trainer callbacks=[LossKeeper(loss)]; in a loop "
                "of your own, give the optimizer loss.parameters() and call loss.learned.start() before it"
            )

    def state(self) -> dict[str, Any]:
        """The values as text, for JSON."""
        values = {name: value.detach().cpu().contiguous() for name, value in self.items()}
        return {"components": list(values), "safetensors": b64encode(save(values)).decode()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the result of `state`.

        Raises:
            ValueError: It has other components, or parameters of another shape.
        """
        if state.get("components") != list(self):
            raise ValueError(
                f"the checkpoint has parameters of {state.get('components')}, and the loss has those of {list(self)}"
            )
        values = load(b64decode(state["safetensors"]))
        for name, own in self.items():
            if (shape := values[name].shape) != own.shape:
                raise ValueError(
                    f"{name} has parameters {tuple(own.shape)}, those of the checkpoint are {tuple(shape)}"
                )
            own.data.copy_(values[name])


def with_own_parameters(tasks: Sequence[Task]) -> tuple[tuple[Task, ...], LearnedParameters]:
    """The same tasks with copies of the parameters of their learned terms, and these copies.

    Example:
        >>> from st_vi.losses.learned import with_own_parameters
        >>> from st_vi import Task
        >>> from st_vi.terms import SimLAP
        >>> tasks, learned = with_own_parameters([Task("topic", "<topic>", (SimLAP(num_classes=7, size=384),))])
        >>> learned["topic_sim_lap"] is tasks[0].terms[0].parameters
        True
    """
    learned = LearnedParameters()
    own = []
    for task in tasks:
        components = task.components
        for name, value in parameters_of(components).items():
            learned[name] = nn.Parameter(value.detach().clone())
        own.append(replace(task, terms=tuple(with_parameters(components, dict(learned.items())).values())))
    return tuple(own), learned
