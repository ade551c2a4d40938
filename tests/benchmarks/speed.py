"""Training steps of our losses against stock, forward and backward, on real Vietnamese rows.

    python -m tests.benchmarks.speed            # prints a Markdown table
    python -m tests.benchmarks.speed --runs 11  # more repeats, for a machine that does other things as well
    python -m tests.benchmarks.speed --profile  # the parts of the mixed steps instead, and what limits them
    python -m tests.benchmarks.speed --cached   # memory of the cached losses instead, which needs no repeats

Both sides of a row have the same model and the same preprocessed rows, and take turns in one process; given are
medians. Dropout is off, so that wherever both compute the same loss their gradients can be compared first. On a busy
machine, `--processor` counts the processor's seconds instead of those that pass.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CoSENTLoss,
    CosineSimilarityLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from st_vi import VIPOLYQWEN_TASKS, MixedTaskCollator
from st_vi.data import nli_to_triplets, read_rows
from st_vi.data.generated.scenes import draw, questions, scene
from st_vi.losses import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss
from st_vi.recipes import build_viclsr, build_vipolyqwen
from st_vi.recipes.examples.small_models import small_qwen2_vl
from st_vi.stock.vision import BY_SIZE, PatchProjection
from tests.benchmarks.viclsr import BASE, DATA

SCORES = {"entailment": 1.0, "neutral": 0.5, "contradiction": 0.0}
# For a visual token the vision tower computes about twice as much as the language model, as in Qwen2-VL-2B.
SMALL = {"width": 256, "layers": 3, "vision_width": 128, "vision_layers": 4}
Features = list[dict[str, Any]]
Step = Callable[[Features], Tensor]


@dataclass(frozen=True)
class Work:
    """One row of the table: two ways to a loss, from the same columns of the same model."""

    name: str
    against: str
    model: SentenceTransformer
    columns: Features
    ours: Step
    peer: Step
    same: bool  # whether both compute the same loss


def xnli(count: int, shuffled: bool) -> list[list[str]]:
    """The columns of `count` triplets, as they follow each other or drawn from all.

    Every premise has two: its contradiction against what it entails, and against the neutral hypothesis.
    """
    triplets = nli_to_triplets(read_rows(DATA / "nli" / "xnli_vi.jsonl"), neutral="weak_positive")["triplets"]
    triplets = (triplets.shuffle(seed=0) if shuffled else triplets).select(range(count))
    return [triplets[name][:] for name in ("anchor", "positive", "negative")]


def triplet_work(shuffled: bool, name: str) -> Work:
    """`SupConNLILoss` with its duplicates as negatives, which makes it the stock loss, against the stock loss."""
    model, columns = build_viclsr(BASE), xnli(64, shuffled)
    loss = SupConNLILoss(model, same_anchor="negative", mask_duplicates=False)
    stock = MultipleNegativesRankingLoss(model, scale=20)
    features = [model.preprocess(column) for column in columns]
    return Work(name, "MultipleNegativesRankingLoss", model, features, loss, lambda c: stock(c, None), same=True)


def scored_work(name: str) -> Work:
    """The paper's `text_pair` in one pass against a stock loss for each of its three terms."""
    model = build_viclsr(BASE)
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl").select(range(64))
    scores = torch.tensor([SCORES[label] for label in rows["label"]])
    features = [model.preprocess(rows[column][:]) for column in ("premise", "hypothesis")]
    loss = DLELoss(model, [VIPOLYQWEN_TASKS[0]])
    labels = torch.stack([torch.zeros_like(scores), scores], dim=1)
    stock = [MultipleNegativesRankingLoss(model), CosineSimilarityLoss(model), CoSENTLoss(model)]
    return Work(
        name,
        "MultipleNegativesRankingLoss, CosineSimilarityLoss, CoSENTLoss, a pass each",
        model,
        features,
        lambda columns: sum(loss(columns, labels).values()),
        lambda columns: sum(part([dict(column) for column in columns], scores) for part in stock),
        same=False,
    )


TEXTS: dict[str, Callable[[str], Work]] = {
    "64 triplets in a row, SupConNLI": partial(triplet_work, False),
    "64 triplets drawn from all, SupConNLI": partial(triplet_work, True),
    "64 scored pairs, DLE `text_pair`: InfoNCE + MSE + rank": scored_work,
}


def drawn_questions(
    count: int = 6, a_picture: int = 1, sizes: Sequence[int] = (112, 112, 168, 224, 336, 448)
) -> list[dict[str, Any]]:
    """Questions about drawn scenes, 112 to 448 pixels wide, so many about each."""
    rows = []
    for seed, size in enumerate(itertools.islice(itertools.cycle(sizes), count // a_picture)):
        shown = scene("train", seed)
        for question in questions(shown)[:a_picture]:
            text = {"task": "vqa_single", "anchor": question.wordings[0], "positive": question.answer}
            rows.append(text | {"anchor_image": draw(shown, size)})
    return rows


def driving_questions() -> list[dict[str, Any]]:
    """The first six questions with an image in their file; most are 448 pixels wide."""
    root = DATA / "vision" / "driving"
    rows = [row for row in read_rows(root / "questions.jsonl") if row["image"]][:6]
    return [
        {
            "task": "vqa_single",
            "anchor": row["question"],
            "positive": row["answers"][row["correct"]],
            "anchor_image": str(picture(root, row["image"])),
        }
        for row in rows
    ]


def text_pairs(count: int = 6) -> list[dict[str, Any]]:
    """The first pairs of XNLI."""
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl").select(range(count))
    return [
        {"task": "text_pair", "anchor": row["premise"], "positive": row["hypothesis"], "score": SCORES[row["label"]]}
        for row in rows
    ]


def picture(root: Path, name: str) -> Path:
    """Where an image is."""
    return root / name if (root / name).exists() else root / "images" / name


def small_vipolyqwen(rows: list[dict[str, Any]]) -> SentenceTransformer:
    """A viPolyQwen of random weights with the words of these rows."""
    texts = [row[side] for row in rows for side in ("anchor", "positive") if side in row]
    with tempfile.TemporaryDirectory() as folder:
        small_qwen2_vl(texts * 20, folder, **SMALL)
        return build_vipolyqwen(folder, embedding_dimension=128, max_pixels=448 * 448)


def mixed_batch(model: SentenceTransformer, rows: list[dict[str, Any]]) -> tuple[Features, Tensor]:
    """Columns and labels as the trainer has them."""
    batch = MixedTaskCollator(model.preprocess)(rows)
    columns = [
        {key.removeprefix(f"{side}_"): value for key, value in batch.items() if key.startswith(f"{side}_")}
        for side in ("anchor", "positive")
    ]
    return columns, batch["label"]


def set_tower(model: SentenceTransformer, stock: bool) -> None:
    """Let the vision tower compute as stock's does, or as ours."""
    visual = model[0].model.visual
    model[0].distinct_pictures.enabled = not stock
    visual.set_attn_implementation("sdpa" if stock else BY_SIZE)
    visual.patch_embed.proj.__class__ = torch.nn.Conv3d if stock else PatchProjection


def mixed_work(name: str, rows: list[dict[str, Any]]) -> Work:
    """`DLELoss` on a small Qwen2-VL, with and without merged inputs."""
    model = small_vipolyqwen(rows)
    features, labels = mixed_batch(model, rows)
    merged, plain = DLELoss(model), DLELoss(model, embed_once=False)

    def step(loss: DLELoss, columns: Features) -> Tensor:
        set_tower(model, stock=loss is plain)
        return sum(loss(columns, labels).values())

    against = "the same loss on stock's padded forwards"
    return Work(name, against, model, features, partial(step, merged), partial(step, plain), same=True)


def gradients(work: Work, step: Step) -> dict[str, Tensor]:
    """Forward and backward."""
    work.model.zero_grad(set_to_none=True)
    # Modules write into the features, so every run has dicts of its own.
    step([dict(column) for column in work.columns]).backward()
    return {name: p.grad for name, p in work.model.named_parameters() if p.grad is not None}


def tokens(work: Work, step: Step) -> str:
    """Tokens forwarded, with padding and without."""
    counts = []

    def count(_: Any, args: tuple[dict[str, Tensor]]) -> None:
        mask = args[0]["attention_mask"]
        counts.append((mask.numel(), int(mask.sum())))

    handle = work.model.register_forward_pre_hook(count)
    gradients(work, step)
    handle.remove()
    padded, real = (sum(column) for column in zip(*counts, strict=True))
    return f"{padded:,} / {real:,} in {len(counts)}"


def without_dropout(model: SentenceTransformer) -> None:
    """Some models keep the probability beside the modules, so `eval` is not enough."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0


def medians(ways: dict[str, Callable[[], Any]], runs: int, clock: Callable[[], float]) -> dict[str, float]:
    """Seconds of each way, by turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            begun = clock()
            way()
            seconds[name].append(clock() - begun)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(work: Work, runs: int, clock: Callable[[], float]) -> str:
    """One row of the table."""
    without_dropout(work.model)
    if work.same:
        mine, theirs = (gradients(work, step) for step in (work.ours, work.peer))
        assert mine.keys() == theirs.keys()
        largest = max(gradient.abs().max() for gradient in theirs.values())
        for name, expected in theirs.items():
            difference = float((mine[name] - expected).abs().max() / largest)
            assert difference < 1e-4, f"{name}: gradients differ by {difference:.1e} of the largest"
    counted = [tokens(work, step) for step in (work.ours, work.peer)]
    ways = {"ours": partial(gradients, work, work.ours), "peer": partial(gradients, work, work.peer)}
    ours, peer = medians(ways, runs, clock).values()
    return f"| {work.name} | {work.against} | {ours:.3f} | {peer:.3f} | {peer / ours:.2f}× | {' | '.join(counted)} |"


def calls_of(work: Work, step: Step, module: torch.nn.Module) -> list[tuple[Any, Any]]:
    """The arguments of all calls of a module in a step."""
    calls = []
    handle = module.register_forward_hook(lambda _, args, kwargs, __: calls.append((args, kwargs)), with_kwargs=True)
    gradients(work, step)
    handle.remove()
    return calls


def again(module: torch.nn.Module, calls: list[tuple[Any, Any]], backward: bool) -> None:
    """The same calls by themselves, forward, or forward and backward."""
    for args, kwargs in calls:
        own = {k: v.detach().requires_grad_() if k == "inputs_embeds" else v for k, v in kwargs.items()}
        with torch.set_grad_enabled(backward):
            output = module(*args, **own)
            if backward:
                output["pooler_output" if "pooler_output" in output else "last_hidden_state"].sum().backward()


def profile(work: Work, rows: list[dict[str, Any]], runs: int, clock: Callable[[], float]) -> str:
    """Milliseconds of the parts of a mixed step, on both sides; and the step if nothing were padded."""
    without_dropout(work.model)
    backbone, optimizer = work.model[0].model, torch.optim.AdamW(work.model.parameters())
    parts = {"vision tower": backbone.visual, "language model": backbone.language_model}
    ways: dict[str, Callable[[], Any]] = {}
    for side, step in (("ours", work.ours), ("stock", work.peer)):
        for part, module in parts.items():
            calls = calls_of(work, step, module)
            for backward in (False, True):
                name = f"{side}, {part}, {'forward and backward' if backward else 'forward'}"
                ways[name] = partial(_as, work, side, partial(again, module, calls, backward))
        ways[f"{side}, step"] = partial(gradients, work, step)
    ways["AdamW"] = optimizer.step
    ways["preprocessing"] = partial(mixed_batch, work.model, rows)
    for way in ways.values():
        way()
    times = {name: 1000 * seconds for name, seconds in medians(ways, runs, clock).items()}
    lines = ["| part | ours, forward | ours, forward and backward | stock, forward | stock, forward and backward |"]
    lines.append("|---|---|---|---|---|")
    for part in parts:
        cells = [times[f"{s}, {part}, {way}"] for s in ("ours", "stock") for way in ("forward", "forward and backward")]
        lines.append(f"| {part} | " + " | ".join(f"{cell:.0f}" for cell in cells) + " |")
    whole = {side: times[f"{side}, step"] for side in ("ours", "stock")}
    rest = {s: whole[s] - sum(times[f"{s}, {part}, forward and backward"] for part in parts) for s in whole}
    lines.append(f"| grouping, pooling, head, loss | | {rest['ours']:.0f} | | {rest['stock']:.0f} |")
    lines.append(f"| the step | | {whole['ours']:.0f} | | {whole['stock']:.0f} |")
    padded, real = (int(number.replace(",", "")) for number in tokens(work, work.ours).split()[:3:2])
    unpadded = whole["ours"] - times["ours, language model, forward and backward"] * (1 - real / padded)
    tower = times["ours, vision tower, forward and backward"]
    faster = [f"{whole['stock'] / value:.2f}" for value in (whole["ours"], unpadded, tower)]
    lines += [
        "",
        f"Ours is {faster[0]} times as fast. It would be {faster[1]} times without padding ({padded} to {real}",
        f"tokens), and {faster[2]} times if there were nothing but the tower. Not in the step: {times['AdamW']:.0f} ms",
        f"for AdamW, and {times['preprocessing']:.0f} ms in the data loader for images and texts.",
    ]
    return "\n".join(lines)


def _as(work: Work, side: str, way: Callable[[], Any]) -> None:
    set_tower(work.model, stock=side == "stock")
    way()


@dataclass(frozen=True)
class Memory:
    """One row of the table of memory: a cached loss on many rows, and the uncached one on the first few of them."""

    name: str
    model: SentenceTransformer
    batch: Callable[[int], tuple[Features, Tensor | None]]  # of so many rows
    uncached: Any
    cached: Callable[[int], Any]  # of a number of tokens in a mini-batch


def triplet_memory(model: SentenceTransformer, most: int) -> Memory:
    """Triplets drawn from all, so that few texts repeat."""
    columns = xnli(most, shuffled=True)
    return Memory(
        "triplets, SupConNLI",
        model,
        lambda count: ([model.preprocess(column[:count]) for column in columns], None),
        SupConNLILoss(model),
        lambda tokens: CachedSupConNLILoss(model, mini_batch_num_tokens=tokens),
    )


def mixed_memory(most: int) -> Memory:
    """Questions about images and scored pairs by turns."""
    rows = list(itertools.chain(*zip(drawn_questions(most // 2), text_pairs(most // 2), strict=True)))
    model = small_vipolyqwen(rows)
    return Memory(
        "mixed rows, half with an image, DLE on a small Qwen2-VL",
        model,
        lambda count: mixed_batch(model, rows[:count]),
        DLELoss(model),
        lambda tokens: CachedDLELoss(model, mini_batch_num_tokens=tokens),
    )


def peak_bytes(model: SentenceTransformer, loss: Any, columns: Features, labels: Tensor | None) -> int:
    """The most that PyTorch held in one forward and backward, above what it held before: all but model and inputs.

    Every allocation and release of PyTorch's allocator, added up: exact and repeatable, which the memory of the
    process is not. It holds activations saved and passing, gradients, embeddings and copies of the inputs.
    """
    model.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        value = loss([dict(column) for column in columns], labels)
        (sum(value.values()) if isinstance(value, dict) else value).backward()
        del value
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events))


def input_bytes(columns: Features) -> int:
    """Of the tensors of a batch."""
    return sum(value.nbytes for column in columns for value in column.values() if isinstance(value, Tensor))


def measure_memory(work: Memory, many: int, few: int) -> str:
    """One row of the table; the mini-batches have the tokens of the few rows, or of those with an image.

    An image's token needs more memory than a word's, and sorted by length, mini-batches of nothing else come about.
    """
    columns, labels = work.batch(few)
    pictured = any("num_images_per_sample" in column for column in columns)
    counts = [column.get("num_images_per_sample", torch.tensor([not pictured] * few)) > 0 for column in columns]
    tokens = sum(int(c["attention_mask"][chosen].sum()) for c, chosen in zip(columns, counts, strict=True))
    work.uncached(columns, labels)  # what is made once, such as the positions of a vision tower, is made before
    uncached, uncached_inputs = peak_bytes(work.model, work.uncached, columns, labels), input_bytes(columns)
    columns, labels = work.batch(many)
    cached, inputs = peak_bytes(work.model, work.cached(tokens), columns, labels), input_bytes(columns)
    parameters = sum(parameter.nbytes for parameter in work.model.parameters())
    peaks, sizes = (f"{b / 2**20:.0f} | {a / 2**20:.0f}" for a, b in ((uncached, cached), (uncached_inputs, inputs)))
    ratio = f"{cached / uncached:.2f}×"
    return f"| {many} against {few} {work.name} | {tokens:,} | {peaks} | {ratio} | {sizes} | {parameters / 2**20:.0f} |"


def print_memory(only: str) -> None:
    """The table of memory."""
    print(
        "| rows | tokens in a mini-batch | cached, MiB | uncached, MiB | ratio | inputs of the cached, MiB | "
        "of the uncached, MiB | parameters, MiB |"
    )
    print("|---|---|---|---|---|---|---|---|")
    many, few = 480, 12
    for make in (lambda: triplet_memory(build_viclsr(BASE), many), lambda: mixed_memory(many)):
        work = make()
        if only in work.name:
            print(measure_memory(work, many, few), flush=True)


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows with this in their name")
    parser.add_argument("--runs", type=int, default=7, help="of each side, at least 5")
    parser.add_argument("--cached", action="store_true", help="the memory of the cached losses")
    parser.add_argument("--profile", action="store_true", help="the parts of the mixed steps")
    parser.add_argument("--processor", action="store_true", help="the processor's seconds")
    options = parser.parse_args()
    if options.cached:
        print_memory(options.only)
        return
    clock = time.process_time if options.processor else time.perf_counter
    mixed = {
        "12 mixed rows, DLE on a small Qwen2-VL; images of many sizes": drawn_questions(),
        "12 mixed rows, the same; three questions an image": drawn_questions(a_picture=3),
        "12 mixed rows, the same; driving images": driving_questions(),
        "12 mixed rows, the same; images of one size, 224 pixels": drawn_questions(sizes=(224,)),
    }
    if options.profile:
        for name, rows in mixed.items():
            if options.only in name:
                rows = rows + text_pairs()
                print(f"{name}\n\n{profile(mixed_work(name, rows), rows, options.runs, clock)}\n", flush=True)
        return
    works: list[tuple[str, Callable[[], Work]]] = [
        *((name, partial(mixed_work, name, rows + text_pairs())) for name, rows in mixed.items()),
        *((name, partial(make, name)) for name, make in TEXTS.items()),
    ]
    print(
        f"{torch.get_num_threads()} thread(s); load of the machine {os.getloadavg()[0]:.1f}; "
        f"medians of {options.runs} runs\n"
    )
    print("| work | against | ours, s | peer, s | ratio | ours: tokens padded / real in forwards | peer: the same |")
    print("|---|---|---|---|---|---|---|")
    for name, make in works:
        if options.only in name:
            print(measure(make(), max(5, options.runs), clock), flush=True)


if __name__ == "__main__":
    main()
