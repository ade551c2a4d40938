"""``python -m st_vi plan train`` and ``plan encode``: whether it fits, and how long it takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from st_vi.cli.options import positive

if TYPE_CHECKING:
    from st_vi.recipes.plan import EncodingPlan, TrainingPlan

Base = Annotated[str, typer.Option(help="a folder with config.json, a published name or a Hub id; no weights are read")]
Rows = Annotated[int, typer.Option(min=1)]
DeviceMemory = Annotated[float, typer.Option(callback=positive, help="GiB of a device")]
Reserve = Annotated[float, typer.Option(help="share of the memory left for driver and fragmentation")]
Devices = Annotated[int, typer.Option(min=1, help="number of devices")]
Tflops = Annotated[float, typer.Option(callback=positive, help="peak of a device, 10^12 operations a second")]
Utilisation = Annotated[float, typer.Option(help="share of the peak that is reached")]
Pixels = Annotated[int, typer.Option(min=0, help="pixels of an image in each row, in addition to the text")]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object")]


def train(
    base: Base,
    rows: Rows,
    max_length: Annotated[int, typer.Option(min=1, help="tokens of each text")],
    batch_size: Annotated[int, typer.Option(min=1, help="rows of a step, over all devices")] = 128,
    epochs: Annotated[float, typer.Option(callback=positive)] = 1,
    inputs: Annotated[
        int | None, typer.Option(min=1, help="inputs of a row; default: 3 for text, 2 for Qwen2-VL")
    ] = None,
    pixels: Pixels = 0,
    device_memory: DeviceMemory = 80,
    reserve: Reserve = 0.1,
    devices: Devices = 1,
    sharding: Annotated[
        Literal["none", "zero1", "zero2", "fsdp"], typer.Option(help="what is split over the devices; fsdp is ZeRO 3")
    ] = "none",
    precision: Annotated[
        Literal["float32", "autocast", "bfloat16"] | None,
        typer.Option(help="autocast: weights in float32; default: that, or bfloat16 for weights published so"),
    ] = None,
    lora_rank: Annotated[int, typer.Option(min=0, help="LoRA on the text layers; 0 trains all weights")] = 0,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="compute layers again for the backward pass")
    ] = False,
    mini_batch: Annotated[
        int | None, typer.Option(min=1, help="inputs of a mini-batch of gradient caching; default: 32, fewer if needed")
    ] = None,
    dimension: Annotated[int, typer.Option(min=1, help="dimension of the vectors of viPolyQwen")] = 1024,
    tflops: Tflops = 989,
    utilisation: Utilisation = 0.35,
    as_json: AsJson = False,
) -> None:
    """Plan a training run: memory on a device, the largest batch with and without gradient caching, hours."""
    from st_vi.recipes.plan import plan_training

    plan = plan_training(
        base,
        rows,
        max_length,
        batch_size=batch_size,
        epochs=epochs,
        inputs=inputs,
        pixels=pixels,
        device_memory=device_memory,
        reserve=reserve,
        devices=devices,
        sharding=sharding,
        precision=precision,
        lora_rank=lora_rank,
        gradient_checkpointing=gradient_checkpointing,
        mini_batch=mini_batch,
        dimension=dimension,
        tflops=tflops,
        utilisation=utilisation,
    )
    _show(plan, as_json)


def encode(
    base: Base,
    rows: Rows,
    tokens: Annotated[int, typer.Option(min=1, help="mean tokens of a text")],
    max_length: Annotated[int | None, typer.Option(min=1, help="tokens of a chunk; default: the limit")] = None,
    dimension: Annotated[int | None, typer.Option(min=1, help="dimension of the vectors")] = None,
    pixels: Pixels = 0,
    max_tokens: Annotated[int, typer.Option(min=1, help="tokens of a batch")] = 16_384,
    shard_rows: Annotated[int, typer.Option(min=1, help="rows of a Parquet file")] = 10_000,
    device_memory: DeviceMemory = 80,
    reserve: Reserve = 0.1,
    devices: Devices = 1,
    bf16: Annotated[bool, typer.Option(help="weights and computation in bfloat16; otherwise float32")] = True,
    tflops: Tflops = 989,
    utilisation: Utilisation = 0.35,
    within_hours: Annotated[float | None, typer.Option(callback=positive, help="wanted time, for Ray workers")] = None,
    as_json: AsJson = False,
) -> None:
    """Plan the encoding of a corpus: memory, Parquet files, size of an index, hours, Ray workers."""
    from st_vi.recipes.plan import plan_encoding

    plan = plan_encoding(
        base,
        rows,
        tokens,
        max_length=max_length,
        dimension=dimension,
        pixels=pixels,
        max_tokens=max_tokens,
        shard_rows=shard_rows,
        device_memory=device_memory,
        reserve=reserve,
        devices=devices,
        bf16=bf16,
        tflops=tflops,
        utilisation=utilisation,
        within_hours=within_hours,
    )
    _show(plan, as_json)


def _show(plan: TrainingPlan | EncodingPlan, as_json: bool) -> None:
    typer.echo(json.dumps(plan.as_dict(), indent=2) if as_json else str(plan))
