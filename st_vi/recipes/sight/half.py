"""Training in bfloat16 with weights kept in single precision, in rounds that an interruption costs little of."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from st_vi.files.lines import append_line

STATE = "state.pt"
Step = Callable[[Random], dict[str, Tensor]]
"""One batch's losses by name, drawn with the given random numbers; their sum is what is trained."""


class HalfPrecision:
    """A model, cast to bfloat16 in place, and AdamW over a copy of its weights in fp32.

    The stock trainer's autocast casts every weight at every step and keeps the sums in fp32: on processors with
    bfloat16 a model of this size trains two to three times as fast when it is itself in bfloat16.

    The learning rate of a parameter is that of all, times the first factor in `rates` whose key is a part of its name.
    Vectors have no weight decay.
    """

    def __init__(
        self, model: nn.Module, learning_rate: float, rates: dict[str, float] | None = None, weight_decay: float = 0.01
    ) -> None:
        self.model = model
        self.names = [name for name, _ in model.named_parameters()]
        self.masters = [parameter.detach().float().clone() for parameter in model.parameters()]
        self.parameters = list(model.parameters())
        for parameter in self.parameters:  # not the buffers: with rounded rotary frequencies positions move
            parameter.data = parameter.data.bfloat16()
        groups: dict[tuple[float, bool], list[Tensor]] = {}
        for name, master in zip(self.names, self.masters, strict=True):
            rate = next((rate for start, rate in (rates or {}).items() if start in name), 1.0)
            groups.setdefault((rate, master.dim() > 1), []).append(master)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": masters, "rate": rate * learning_rate, "weight_decay": weight_decay if matrices else 0.0}
                for (rate, matrices), masters in groups.items()
            ],
            betas=(0.9, 0.98),
            eps=1e-6,
            foreach=True,
        )

    def step(self, share: float) -> float:
        """One step at this share of the highest learning rate; returns the norm of the gradient before clipping."""
        used = [parameter.grad is not None for parameter in self.parameters]
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        norm = nn.utils.clip_grad_norm_(self.masters, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = share * group["rate"]
        self.optimizer.step()
        with torch.no_grad():
            for master, parameter, moved in zip(self.masters, self.parameters, used, strict=True):
                if moved:
                    parameter.copy_(master)
        return float(norm)

    def state(self) -> dict[str, Any]:
        """All that it takes to go on."""
        return {"weights": dict(zip(self.names, self.masters, strict=True)), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            ValueError: It is of other weights or learning rates.
        """
        theirs, ours = (
            [(group["rate"], len(group["params"])) for group in groups]
            for groups in (state["optimizer"]["param_groups"], self.optimizer.param_groups)
        )
        if state["weights"].keys() != set(self.names) or theirs != ours:
            raise ValueError("its layers or learning rates were others")
        self.load_weights(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def to_single(self) -> None:
        """Give the model the weights in fp32."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data = master.clone()

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take these weights, by name."""
        for name, master, parameter in zip(self.names, self.masters, self.parameters, strict=True):
            master.copy_(weights[name])
            parameter.copy_(weights[name])


def learn(
    training: HalfPrecision,
    step: Step,
    steps: int,
    folder: Path,
    *,
    seed: int = 0,
    warm_up: int = 50,
    save_seconds: float = 120.0,
    log_every: int = 25,
    log: Callable[[dict[str, Any]], None] = lambda _: None,
    lowest: float = 0.03,
    is_over: bool = False,
) -> None:
    """Train until step `steps`, with a linear warm-up, then a cosine to the share `lowest` of the learning rate.

    Saves in the folder every `save_seconds`, and goes on from there. Step n always draws the same random numbers.
    Every `log_every` steps, `log` gets the mean losses and the steps a second.

    Raises:
        ValueError: What the folder has was trained with other layers or learning rates, for more steps, or, if it
            `is_over` because other training came after it, for fewer.
    """
    file, done = folder / STATE, 0
    if file.exists():
        state = torch.load(file, weights_only=True)
        done = state["step"]
        if done > steps or (is_over and done < steps):
            raise ValueError(f"{folder} was begun with other settings: it has {done} steps, and {steps} are asked for")
        try:
            training.load(state)
        except ValueError as error:
            raise ValueError(f"{folder} was begun with other settings: {error}") from error
    saved = logged = time.time()
    totals: dict[str, list[float]] = {}
    training.model.train()
    for number in range(done, steps):
        losses = step(Random(f"{seed} {number}"))
        sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        share = min(1.0, (number + 1) / warm_up) * (
            lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * number / steps))
        )
        losses["gradient"] = torch.tensor(training.step(share))
        for name, value in losses.items():
            totals.setdefault(name, []).append(float(value.detach()))
        if (number + 1) % log_every == 0 or number + 1 == steps:
            now = time.time()
            count = max(map(len, totals.values()))
            log(
                {"step": number + 1, "steps_per_second": round(count / (now - logged), 2)}
                | {name: round(sum(values) / len(values), 4) for name, values in totals.items()}
            )
            totals, logged = {}, now
        if time.time() - saved > save_seconds or number + 1 == steps:
            folder.mkdir(parents=True, exist_ok=True)
            save_whole({**training.state(), "step": number + 1}, file)
            saved = time.time()


def write_record(file: Path, record: dict[str, Any]) -> None:
    """One more line."""
    append_line(file, json.dumps({"at": time.strftime("%H:%M:%S"), **record}, ensure_ascii=False))


def save_whole(content: Any, file: Path) -> None:
    """Save with torch: the file is there completely or not at all, also after a kill."""
    torch.save(content, file.with_suffix(".new"))
    os.replace(file.with_suffix(".new"), file)
