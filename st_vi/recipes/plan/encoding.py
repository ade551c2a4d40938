"""Memory, time and disk of the encoding of a corpus."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from st_vi.recipes.plan.shape import ModelShape, Precision, read_shape

GB = 10**9
GIB = 2**30


@dataclass(frozen=True)
class EncodingPlan:
    """What the encoding of a corpus takes.

    Attributes:
        model: The shape of the model.
        vectors: Number of vectors; more than rows if long texts are split into chunks.
        dimension: Dimension of a vector.
        memory: Bytes on a device: weights, and one batch.
        usable: Bytes of a device.
        shards: Number of Parquet files.
        shard_bytes: Bytes of the vectors of a full file, in float32.
        index_bytes: Bytes of all vectors by dtype.
        flops: Floating-point operations for all vectors.
        hours: Time on all devices at the given utilisation.
        workers: Workers of `encode_with_ray` for the wanted time, one device each; None if no time was given.
    """

    model: ModelShape
    vectors: int
    dimension: int
    memory: float
    usable: float
    shards: int
    shard_bytes: float
    index_bytes: dict[str, float]
    flops: float
    hours: float
    workers: int | None

    @property
    def fits(self) -> bool:
        """Whether weights and a batch fit into a device."""
        return self.memory <= self.usable

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self) | {"fits": self.fits}

    def __str__(self) -> str:
        """A table."""
        verdict = "fits" if self.fits else "does not fit"
        lines = [
            str(self.model),
            "",
            f"{'vectors':32}{self.vectors:14,}",
            f"{'dimension':32}{self.dimension:14,}",
            f"{'GiB on a device':32}{self.memory / GIB:14.2f}  {verdict} into {self.usable / GIB:.1f}",
            f"{'Parquet files':32}{self.shards:14,}  of {self.shard_bytes / 1e6:,.0f} MB in float32",
        ]
        lines += [f"{'GB of vectors, ' + name:32}{size / GB:14,.1f}" for name, size in self.index_bytes.items()]
        lines += [f"{'exaFLOP':32}{self.flops / 1e18:14,.1f}", f"{'hours':32}{self.hours:14,.1f}"]
        if self.workers is not None:
            lines.append(f"{'Ray workers for the wanted time':32}{self.workers:14,}")
        return "\n".join(lines)


def plan_encoding(
    base: str | ModelShape,
    rows: int,
    tokens: int,
    *,
    max_length: int | None = None,
    dimension: int | None = None,
    pixels: int = 0,
    max_tokens: int = 16_384,
    shard_rows: int = 10_000,
    device_memory: float = 80,
    reserve: float = 0.1,
    devices: int = 1,
    bf16: bool = True,
    tflops: float = 989,
    utilisation: float = 0.35,
    within_hours: float | None = None,
) -> EncodingPlan:
    """Plan the encoding of a corpus with `encode_corpus` or `encode_with_ray` without loading a model.

    Args:
        base: As for `read_shape`, or a shape.
        rows: Rows of the corpus.
        tokens: Mean number of tokens of a text.
        max_length: Tokens of a chunk, into which longer texts are split; None for as many as the model reads.
        dimension: Dimension of the vectors; None for the width of the model, 1024 for viPolyQwen.
        pixels: Pixels of an image in each row, in addition to the text; 0 for text alone.
        max_tokens: Tokens of a batch.
        shard_rows: Rows of a Parquet file.
        device_memory: GiB of a device.
        reserve: Share of the memory left for the driver and for fragmentation.
        devices: Number of devices, each with all rows of a part of the shards.
        bf16: Whether weights and computation are in bfloat16 instead of float32.
        tflops: Peak of a device, as for `plan_training`.
        utilisation: Share of the peak that is reached.
        within_hours: Wanted time.

    Raises:
        ValueError: There is no such model, a number is out of range, or the model does not read `max_length` tokens.

    Example:
        >>> from st_vi.recipes.plan import plan_encoding
        >>> plan_encoding("vi-mini", rows=1_000_000, tokens=100).index_bytes["int8"]
        384000000.0
    """
    shape = base if isinstance(base, ModelShape) else read_shape(base)
    if pixels and not shape.vision:
        raise ValueError(f"{shape.name} has no vision tower: leave pixels out")
    numbers: dict[str, float | None] = {"rows": rows, "tokens": tokens, "max_length": max_length}
    numbers |= {"dimension": dimension, "max_tokens": max_tokens, "shard_rows": shard_rows, "devices": devices}
    numbers |= {"device_memory": device_memory, "tflops": tflops, "within_hours": within_hours}
    if bad := {name: value for name, value in numbers.items() if value is not None and not value > 0}:
        raise ValueError(f"{next(iter(bad))} must be positive, got {next(iter(bad.values()))}")
    if not 0 <= reserve < 1 or not 0 < utilisation <= 1:
        raise ValueError(f"reserve and utilisation are shares, got {reserve} and {utilisation}")
    limit = max_length or shape.positions
    if limit > shape.positions:
        raise ValueError(f"{shape.name} reads at most {shape.positions} tokens, got max_length={max_length}")
    chunks = math.ceil(tokens / limit)
    width = dimension or (1024 if shape.vision else shape.text.hidden)
    patches = shape.patches(pixels) if pixels else 0
    read = math.ceil(tokens / chunks) + patches // shape.patches_per_token
    flops = float(rows) * shape.text.flops(read, chunks)
    if shape.vision and patches:
        flops += float(rows) * shape.vision.flops(patches)
    vectors = rows * chunks
    hours = flops / (devices * tflops * 1e12 * utilisation) / 3600
    return EncodingPlan(
        model=shape,
        vectors=vectors,
        dimension=width,
        memory=_memory(shape, max(max_tokens, read), patches, read, bf16),
        usable=device_memory * GIB * (1 - reserve),
        shards=math.ceil(rows / shard_rows),
        shard_bytes=4.0 * shard_rows * chunks * width,
        index_bytes={name: vectors * width * size for name, size in _BYTES.items()},
        flops=flops,
        hours=hours,
        workers=None if within_hours is None else math.ceil(hours * devices / within_hours),
    )


_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "binary": 1 / 8}


def _memory(shape: ModelShape, batch_tokens: int, patches: int, read: int, bf16: bool) -> float:
    """Bytes of weights and of one layer's values for a batch."""
    precision: Precision = "bfloat16" if bf16 else "float32"
    values = float(batch_tokens) * shape.text.working_bytes(precision)
    if shape.vision and patches:
        in_batch = batch_tokens // read * patches
        values += in_batch * (shape.vision.working_bytes(precision) + 4.0 * shape.patch_values)
    return (2 if bf16 else 4) * shape.weights + values
