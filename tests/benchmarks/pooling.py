"""`AttentionPooling` against stock mean pooling, forward and backward: time and memory.

    python -m tests.benchmarks.pooling                # prints a Markdown table
    python -m tests.benchmarks.pooling --threads 2 --runs 15
    python -m tests.benchmarks.pooling --dtype bfloat16

All poolings get the same tokens and mask, and take turns in one process. A ratio is the median of the ratios of
neighbouring runs, so that other work on the machine weighs on both sides. Memory is counted where torch allocates it
(the profiler's memory events), temporaries inside an operation included: the most bytes alive at a time, beyond those
alive before the step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from st_vi import AttentionPooling
from st_vi.modules.attention_pooling import attention_weights

MEBIBYTE = 2**20


class ByAutograd(AttentionPooling):
    """`AttentionPooling` without its own backward."""

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        tokens = features["token_embeddings"]
        belongs = features["attention_mask"].bool().unsqueeze(1)
        weights = attention_weights(tokens, self.attention_context_vector.to(tokens.dtype), belongs)
        return features | {"sentence_embedding": (weights.to(tokens.dtype) @ tokens).flatten(1)}


def padded_tokens(shape: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Tokens and the mask of a batch whose longest input fills it, the others an eighth of that length and more."""
    batch, length, _ = shape
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(length // 8, length + 1, (batch,), generator=generator)
    lengths[0] = length
    return {
        "token_embeddings": torch.randn(shape, generator=generator).to(dtype).requires_grad_(),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
    }


def forward(pool: nn.Module, features: dict[str, Tensor]) -> Tensor:
    """The embeddings; no gradients are left from before."""
    features["token_embeddings"].grad = None
    pool.zero_grad()
    return pool(dict(features))["sentence_embedding"]


def gradient_of(embedding: Tensor) -> Tensor:
    """Some gradient that is not the same everywhere."""
    return torch.linspace(-1, 1, embedding.numel(), dtype=embedding.dtype).view_as(embedding)


def seconds(pool: nn.Module, features: dict[str, Tensor]) -> tuple[float, float]:
    """Time of the forward, and of forward and backward."""
    begin = time.perf_counter()
    embedding = forward(pool, features)
    middle = time.perf_counter()
    embedding.backward(gradient_of(embedding))
    return middle - begin, time.perf_counter() - begin


def peak_and_left(work: Callable[[], object]) -> tuple[int, int]:
    """The most bytes of this work alive at a time, and those it leaves, as torch's allocator on the CPU reports."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]")
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak, alive


def peaks(pool: nn.Module, features: dict[str, Tensor]) -> tuple[int, int]:
    """Peak of the forward, and of the backward with all that the forward leaves and the gradient of the tokens."""
    embeddings: list[Tensor] = []
    forward(pool, features)  # drops old gradients, which would count as freed
    in_forward, left = peak_and_left(lambda: embeddings.append(forward(pool, features)))
    gradient = gradient_of(embeddings[0])
    in_backward, _ = peak_and_left(lambda: embeddings[0].backward(gradient))
    return in_forward, left + in_backward


def check(width: int, features: dict[str, Tensor]) -> None:
    """The gradients that are timed are those of the formula."""
    own, plain = AttentionPooling(width, 4), ByAutograd(width, 4)
    plain.load_state_dict(own.state_dict())
    results = []
    for pool in (own, plain):
        embedding = forward(pool, features)
        embedding.backward(gradient_of(embedding))
        results.append([embedding, features["token_embeddings"].grad, pool.attention_context_vector.grad])
    tolerance = 1e-3 if features["token_embeddings"].dtype == torch.float32 else 0.05
    for actual, expected in zip(*results, strict=True):
        difference = (actual - expected).norm() / expected.norm()
        if not difference < tolerance:
            raise AssertionError(f"The gradients differ by {difference:.1%}")


def table(shape: tuple[int, int, int], dtype: torch.dtype, runs: int) -> str:
    """The figures as a Markdown table."""
    features, width = padded_tokens(shape, dtype), shape[-1]
    check(width, features)
    pools = {
        "stock mean pooling": Pooling(width, "mean"),
        "`AttentionPooling`": AttentionPooling(width),
        "the same by autograd": ByAutograd(width),
        "`AttentionPooling`, 4 heads": AttentionPooling(width, 4),
        "the same by autograd, 4 heads": ByAutograd(width, 4),
    }
    times = []
    for run in range(runs + 1):
        measured = [seconds(pool, features) for pool in pools.values()]
        times += [measured] if run else []  # the first warms up
    memory = [peaks(pool, features) for pool in pools.values()]
    needed = features["token_embeddings"].nbytes  # the gradient of the tokens, which every pooling has to write
    extra = [max(in_forward, in_backward - needed) for in_forward, in_backward in memory]
    lines = [
        "| pooling | forward ms | forward + backward ms | × stock | lowest to highest | forward's peak MiB |"
        " backward's peak MiB | peak without the gradient of the tokens, × stock |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for i, name in enumerate(pools):
        half = statistics.median(row[i][0] for row in times) * 1e3
        whole = statistics.median(row[i][1] for row in times) * 1e3
        ratios = [row[i][1] / row[0][1] for row in times]
        in_forward, in_backward = (size / MEBIBYTE for size in memory[i])
        lines.append(
            f"| {name} | {half:.1f} | {whole:.1f} | {statistics.median(ratios):.2f} |"
            f" {min(ratios):.2f} to {max(ratios):.2f} | {in_forward:.1f} | {in_backward:.1f} |"
            f" {extra[i] / extra[0]:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 512, 1024), help="batch, tokens, width")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    before = os.getloadavg()[0]
    print(table(tuple(settings.shape), getattr(torch, settings.dtype), settings.runs))
    shape, load = " × ".join(map(str, settings.shape)), os.getloadavg()[0]
    print(
        f"\n{shape}, {settings.dtype}, threads: {settings.threads}, runs: {settings.runs}, cores: {os.cpu_count()},"
        f" load before and after: {before:.1f}, {load:.1f}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
