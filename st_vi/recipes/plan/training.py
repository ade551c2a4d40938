"""Memory and time of a training run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from st_vi.checks import check_choice
from st_vi.losses.blocks import MAX_MATRIX_BYTES
from st_vi.modules import MLPHead
from st_vi.recipes.plan.shape import ModelShape, Precision, read_shape

Sharding = Literal["none", "zero1", "zero2", "fsdp"]

GIB = 2**30
_MATRICES = 10  # of rows × candidates that an InfoNCE keeps or computes at once
_VECTORS = 8  # copies of the embeddings of a batch, with their gradients, that gradient caching keeps
_MOST_ROWS = 2**26


@dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
        weights: Weights, with the bfloat16 copies of autocast.
        gradients: Gradients, with their copy in the buckets of data-parallel training.
        optimizer: Both moments of AdamW.
        activations: What the forward pass keeps for the backward pass.
        loss: Matrices of rows × candidates; with gradient caching also the vectors and inputs of the whole batch.
        working: Temporary values of one layer.
        cached: Whether gradient caching is used, with which gradients and activations are there together.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    working: float
    cached: bool

    @property
    def peak(self) -> float:
        """The most at a time. Gradients appear while activations go, unless earlier mini-batches left some."""
        both = self.gradients + self.activations if self.cached else max(self.gradients, self.activations)
        return self.weights + self.optimizer + both + self.loss + self.working


@dataclass(frozen=True)
class Way:
    """One of the two ways to train on a batch: at once, or with gradient caching.

    Attributes:
        memory: Memory with the wanted batch.
        largest: Most rows on a device; 0 if none fits.
        flops: Floating-point operations of the whole training.
        hours: Time at the given utilisation.
    """

    memory: Memory
    largest: int
    flops: float
    hours: float


@dataclass(frozen=True)
class TrainingPlan:
    """What a training run takes.

    Attributes:
        model: The shape of the model.
        trained: Number of trained weights.
        precision: Dtype of weights and computation.
        tokens: Tokens of a row, over all of its inputs.
        usable: Bytes of a device that a plan may fill.
        batch: Rows on a device in a step.
        steps: Optimizer steps.
        at_once: The whole batch in one forward pass.
        cached: With gradient caching, in mini-batches.
        mini_batch: Inputs of such a mini-batch.
        accumulation: Batches at once whose gradients add up to a step of as many rows; 0 if not one row fits. Unlike
            gradient caching, this gives a row fewer negatives.
    """

    model: ModelShape
    trained: int
    precision: Precision
    tokens: int
    usable: float
    batch: int
    steps: int
    at_once: Way
    cached: Way
    mini_batch: int
    accumulation: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found = asdict(self)
        for name in ("at_once", "cached"):
            peak = getattr(self, name).memory.peak
            found[name] |= {"peak": peak, "fits": peak <= self.usable}
        return found

    def __str__(self) -> str:
        """A table."""
        ways = (self.at_once, self.cached)

        def line(name: str, values: Iterable[object]) -> str:
            return f"{name:32}" + "".join(f"{value:>14}" for value in values)

        def gib(name: str) -> list[str]:
            return [f"{getattr(way.memory, name) / GIB:.2f}" for way in ways]

        parts = ("weights", "gradients", "optimizer", "activations", "loss", "working")
        lines = [
            str(self.model),
            f"trained: {self.trained / 1e6:,.1f} million weights, {self.precision}; {self.tokens:,} tokens a row",
            "",
            line("", ["at once", "with caching"]),
            f"GiB on a device for {self.batch:,} rows",
            *(line(f"  {name}", gib(name)) for name in parts),
            line("  peak", gib("peak")),
            line(f"fits into {self.usable / GIB:.1f}", ["yes" if w.memory.peak <= self.usable else "no" for w in ways]),
            line("largest batch on a device", [_shown(way.largest) for way in ways]),
            line("exaFLOP", [f"{way.flops / 1e18:,.1f}" for way in ways]),
            line("hours", [f"{way.hours:,.1f}" for way in ways]),
            "",
            f"{self.steps:,} steps; caching in mini-batches of {self.mini_batch} inputs",
        ]
        if self.accumulation > 1:
            lines.append(f"at once, {self.accumulation} batches make a step; a row then has fewer negatives")
        return "\n".join(lines)


def plan_training(
    base: str | ModelShape,
    rows: int,
    max_length: int,
    *,
    batch_size: int = 128,
    epochs: float = 1,
    inputs: int | None = None,
    pixels: int = 0,
    device_memory: float = 80,
    reserve: float = 0.1,
    devices: int = 1,
    sharding: Sharding = "none",
    precision: Precision | None = None,
    lora_rank: int = 0,
    gradient_checkpointing: bool = False,
    mini_batch: int | None = None,
    dimension: int = 1024,
    tflops: float = 989,
    utilisation: float = 0.35,
) -> TrainingPlan:
    """Plan a training run of ViCLSR (an encoder of text) or viPolyQwen (Qwen2-VL) without loading a model.

    Memory is counted for inputs of full length, without equal inputs, with fused attention and AdamW; time from the
    matrix products of all layers. In a batch with padding, each layer also keeps a mask, a number for every pair of
    tokens of an input, and in Qwen2-VL the keys and values of every head: 6 % more activations for Qwen2-VL-2B with 768
    tokens. `docs/scale.md` says what else is not counted.

    Args:
        base: As for `read_shape`, or a shape.
        rows: Rows of the training set.
        max_length: Tokens of each text, including special ones.
        batch_size: Rows of a step, over all devices.
        epochs: Passes over the rows.
        inputs: Inputs of a row; None for 3 in ViCLSR (premise, entailment, contradiction) and 2 in viPolyQwen.
        pixels: Pixels of an image in each row, in addition to the text; 0 for text alone.
        device_memory: GiB of a device.
        reserve: Share of the memory left for the driver and for fragmentation.
        devices: Number of devices.
        sharding: What each device holds a part of: "none" (data parallel), "zero1" (optimizer), "zero2" (and gradients)
            or "fsdp" (and weights; ZeRO 3).
        precision: "float32", "autocast" (weights in float32) or "bfloat16" (weights, too); None for the dtype of the
            published weights, in autocast if that is float32.
        lora_rank: Rank of LoRA on the layers of the text model; 0 trains all weights.
        gradient_checkpointing: Whether layers are computed again for the backward pass.
        mini_batch: Inputs of a mini-batch of gradient caching; None for 32, or fewer if only those fit.
        dimension: Dimension of the vectors of viPolyQwen.
        tflops: Peak of a device in the dtype of the computation, in 10¹² operations a second; 989 is an H100 in
            bfloat16.
        utilisation: Share of the peak that is reached.

    Raises:
        ValueError: There is no such model, or a number is out of range.

    Example:
        >>> from st_vi.recipes.plan import plan_training
        >>> plan = plan_training("xlm-roberta-large", rows=500_000, max_length=128, batch_size=256)
        >>> plan.at_once.largest < 256 < plan.cached.largest
        True
    """
    shape = base if isinstance(base, ModelShape) else read_shape(base)
    inputs = inputs or (2 if shape.vision else 3)
    _check(shape, pixels, max_length, sharding, precision, reserve, utilisation)
    numbers = {"rows": rows, "max_length": max_length, "batch_size": batch_size, "epochs": epochs, "inputs": inputs}
    numbers |= {"device_memory": device_memory, "devices": devices, "mini_batch": mini_batch or 1, "tflops": tflops}
    if bad := {name: value for name, value in numbers.items() if not value > 0}:
        raise ValueError(f"{next(iter(bad))} must be positive, got {next(iter(bad.values()))}")
    run = _Run(
        shape,
        max_length,
        inputs,
        shape.patches(pixels) if pixels else 0,
        devices,
        sharding,
        precision or ("bfloat16" if shape.bf16 else "autocast"),
        lora_rank,
        gradient_checkpointing,
        mini_batch or 32,
        dimension,
    )
    usable = device_memory * GIB * (1 - reserve)
    batch = math.ceil(batch_size / devices)
    while mini_batch is None and run.mini_batch > 1 and run.memory(batch, cached=True).peak > usable:
        run = replace(run, mini_batch=run.mini_batch // 2)

    def way(cached: bool) -> Way:
        flops = epochs * rows * run.row_flops(cached)
        hours = flops / (devices * tflops * 1e12 * utilisation) / 3600
        largest = _largest(lambda count: run.memory(count, cached).peak <= usable)
        return Way(run.memory(batch, cached), largest, flops, hours)

    at_once = way(cached=False)
    return TrainingPlan(
        model=shape,
        trained=run.trained,
        precision=run.precision,
        tokens=run.tokens * inputs + run.visual_tokens,
        usable=usable,
        batch=batch,
        steps=math.ceil(epochs * math.ceil(rows / batch_size)),
        at_once=at_once,
        cached=way(cached=True),
        mini_batch=run.mini_batch,
        accumulation=math.ceil(batch / at_once.largest) if at_once.largest else 0,
    )


@dataclass(frozen=True)
class _Run:
    """The settings of a training run that decide its memory and time."""

    shape: ModelShape
    tokens: int
    inputs: int
    patches: int
    devices: int
    sharding: Sharding
    precision: Precision
    lora_rank: int
    checkpointing: bool
    mini_batch: int
    dimension: int

    @property
    def visual_tokens(self) -> int:
        """Tokens of the language model for the image of a row."""
        return self.patches // self.shape.patches_per_token

    @property
    def head(self) -> int:
        """Weights of pooling and head."""
        hidden = self.shape.text.hidden
        with torch.device("meta"):
            head = (
                MLPHead(hidden, self.dimension, num_layers=2, activation="gelu", layer_norm=True)
                if self.shape.vision
                else MLPHead(hidden, hidden)
            )
        return hidden + sum(parameter.numel() for parameter in head.parameters())

    @property
    def added(self) -> int:
        """Weights of LoRA."""
        return self.lora_rank * self.shape.text.lora_weights

    @property
    def trained(self) -> int:
        """Weights with a gradient."""
        return (self.added if self.lora_rank else self.shape.weights - self.shape.idle) + self.head

    def memory(self, rows: int, cached: bool) -> Memory:
        """Memory of a device on which a batch has so many rows."""
        size = 2 if self.precision == "bfloat16" else 4
        sharded = {"none": (), "zero1": ("o",), "zero2": ("o", "g"), "fsdp": ("o", "g", "w")}[self.sharding]
        part = {what: self.devices if what in sharded else 1 for what in "wgo"}
        linear = self.shape.text.weights + (self.shape.vision.weights if self.shape.vision else 0)
        casts = 2 * linear if self.precision == "autocast" else 0
        gathered = size * linear / self.shape.text.layers if part["w"] > 1 else 0
        buckets = 2 if self.devices > 1 and part["g"] == 1 else 1
        at_once = min(rows * self.inputs, self.mini_batch) if cached else rows * self.inputs
        images = min(rows, self.mini_batch) if cached else rows
        if not self.patches:
            images = 0
        tokens = at_once * self.tokens + images * self.visual_tokens
        return Memory(
            weights=size * (self.shape.weights + self.added + self.head) / part["w"] + casts / part["w"] + gathered,
            gradients=size * self.trained / part["g"] * buckets,
            optimizer=2 * size * self.trained / part["o"],
            activations=self._kept(tokens, images * self.patches),
            loss=self._loss(rows, cached),
            working=tokens * self.shape.text.working_bytes(self.precision),
            cached=cached,
        )

    def _kept(self, tokens: int, patches: int) -> float:
        """Bytes of activations."""
        text, vision, size = self.shape.text, self.shape.vision, 2 if self.precision == "bfloat16" else 4
        kept = tokens * 10.0 * text.hidden  # embeddings, their norm, and the output
        each = text.kept_bytes(self.precision, self.shape.dropout)
        kept += self._layers(tokens, each, text.layers, text.hidden, size)
        if vision and patches:
            kept += 4.0 * patches * self.shape.patch_values
            if not self.lora_rank:  # otherwise the tower has no gradients
                each = vision.kept_bytes(self.precision, False)
                kept += self._layers(patches, each, vision.layers, vision.hidden, size)
                kept += patches * 16.0 * vision.hidden  # between the tower and the language model
        return kept

    def _layers(self, tokens: int, each: int, layers: int, hidden: int, size: int) -> float:
        if self.checkpointing:
            return tokens * (layers * hidden * size + each)
        return float(tokens * layers * each)

    def _loss(self, rows: int, cached: bool) -> float:
        """Bytes of matrices, and of what gradient caching keeps of a batch."""
        width = self.dimension if self.shape.vision else self.shape.text.hidden
        candidates = rows * max(1, self.inputs - 1)
        matrices = 4.0 * rows * candidates
        if not cached:
            return _MATRICES * matrices
        vectors = 4.0 * _VECTORS * rows * self.inputs * width
        read = 16.0 * (self.inputs * self.tokens + self.visual_tokens) + 4.0 * self.patches * self.shape.patch_values
        return _MATRICES * min(matrices, max(MAX_MATRIX_BYTES, 4.0 * candidates)) + vectors + rows * read

    def row_flops(self, cached: bool) -> float:
        """Floating-point operations to train on a row."""
        stack, vision, lora = self.shape.text, self.shape.vision, bool(self.lora_rank)
        forwards = 1 + int(self.checkpointing) + int(cached)
        total = 0.0
        for tokens, inputs in ((self.tokens, self.inputs - 1), (self.tokens + self.visual_tokens, 1)):
            total += forwards * stack.flops(tokens, inputs) + stack.backward_flops(tokens, inputs, frozen=lora)
            total += (forwards + 2) * 2.0 * self.added * tokens * inputs
        if vision and self.patches:  # with LoRA, the tower has no gradients
            total += (forwards - int(lora and self.checkpointing)) * vision.flops(self.patches)
            total += 0.0 if lora else vision.backward_flops(self.patches)
        return total


def _check(
    shape: ModelShape,
    pixels: int,
    max_length: int,
    sharding: str,
    precision: str | None,
    reserve: float,
    utilisation: float,
) -> None:
    if pixels and not shape.vision:
        raise ValueError(f"{shape.name} has no vision tower: leave pixels out")
    if pixels < 0:
        raise ValueError(f"pixels must not be negative, got {pixels}")
    if max_length > shape.positions:
        raise ValueError(f"{shape.name} reads at most {shape.positions} tokens, got max_length={max_length}")
    check_choice("sharding", sharding, Sharding)
    if precision is not None:
        check_choice("precision", precision, Precision)
    if not 0 <= reserve < 1 or not 0 < utilisation <= 1:
        raise ValueError(f"reserve and utilisation are shares, got {reserve} and {utilisation}")


def _largest(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, 0 if not even one does."""
    low, high = 0, 1
    while high <= _MOST_ROWS and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _shown(rows: int) -> str:
    return "none fits" if not rows else f"{rows:,}" if rows < _MOST_ROWS else f"over {_MOST_ROWS // 10**6} million"
