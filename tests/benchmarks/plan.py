"""Plans against measured trainings: small models trained on the CPU, each in a process of its own.

    python -m tests.benchmarks.plan
    python -m tests.benchmarks.plan --only float32 --steps 3

Every run takes a few steps of AdamW on rows of full length, and reads the peak of its memory from the system, less what
the process had before there was a model. The plan is made from the configuration alone, but for the speed in operations
a second, which no configuration tells: that of a short run of the same system in the same precision, on 4 rows of
text. Attention has no dropout here: with it, attention on the CPU keeps whole matrices, which fused attention on a GPU
does not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SPEED_ROWS = 4  # of the run that measures the speed
TEXT = {"hidden_size": 256, "num_attention_heads": 8, "intermediate_size": 1024, "num_hidden_layers": 6}


@dataclass(frozen=True)
class Case:
    """A training."""

    system: str = "viclsr"
    rows: int = 16
    length: int = 128
    pixels: int = 0
    precision: str = "float32"
    cached: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


CASES = {
    "ViCLSR, float32": Case(),
    "ViCLSR, bf16 autocast": Case(precision="autocast"),
    "ViCLSR, gradient checkpointing": Case(rows=32, settings={"gradient_checkpointing": True}),
    "ViCLSR, gradient caching": Case(rows=64, cached=True),
    "ViCLSR, half the rows": Case(rows=8),
    "viPolyQwen, text, float32": Case("vipolyqwen"),
    "viPolyQwen, LoRA": Case("vipolyqwen", settings={"lora_rank": 16}),
    "viPolyQwen, images of 224 pixels": Case("vipolyqwen", rows=8, length=64, pixels=224 * 224),
}


def model_of(case: Case, folder: Path) -> Any:
    """A random model of the case."""
    import torch
    from transformers import AutoModel, XLMRobertaConfig

    from st_vi.recipes import build_viclsr, build_vipolyqwen, lora_config

    torch.manual_seed(0)
    base = folder / "base"
    if case.system == "viclsr":
        from tests.conftest import tiny_tokenizer

        tokenizer = tiny_tokenizer(case.length)
        config = XLMRobertaConfig(
            vocab_size=8000, attention_probs_dropout_prob=0.0, max_position_embeddings=case.length + 2, **TEXT
        )
        AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(base)
        tokenizer.save_pretrained(base)
        return build_viclsr(base).cpu()
    from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl

    save_tiny_qwen2_vl(base, width=192, layers=6, vision_width=192, vision_layers=6)
    lora = lora_config(rank=case.settings["lora_rank"]) if "lora_rank" in case.settings else None
    pixels = case.pixels or 56 * 56
    return build_vipolyqwen(str(base), embedding_dimension=128, max_pixels=pixels, min_pixels=pixels, lora=lora).cpu()


def text_of(number: int, words: int) -> str:
    """A text that differs from all others, longer than every limit."""
    from tests.conftest import SENTENCES

    return " ".join(random.Random(number).choices(" ".join(SENTENCES).split(), k=words))


def inputs_of(case: Case, model: Any) -> tuple[list[dict[str, Any]], Any]:
    """Features as the collator makes them, and labels."""
    import torch
    from PIL import Image

    columns = 3 if case.system == "viclsr" else 2
    texts = [[text_of(100 * row + column, case.length) for row in range(case.rows)] for column in range(columns)]
    limit = {"processing_kwargs": {"text": {"max_length": case.length, "truncation": True}}}
    if case.system == "viclsr":
        return [model.preprocess(column, **limit) for column in texts], None
    side = round(case.pixels**0.5)
    pictures = [Image.effect_noise((side, side), 50 + row).convert("RGB") for row in range(case.rows)] if side else []
    features = [model.preprocess(column, **limit) for column in texts]
    if pictures:
        ids = features[0]["input_ids"][:, : case.length - 8]  # the template and the marks around an image take the rest
        short = [model.tokenizer.decode(row) for row in ids]
        both = [{"text": text, "image": picture} for text, picture in zip(short, pictures, strict=True)]
        features[0] = model.preprocess(both)
    return features, torch.tensor([[0.0, 0.5]] * case.rows)


def train(case: Case, steps: int) -> dict[str, Any]:
    """What runs in its own process: memory of a few steps, and the sizes that the plan needs."""
    import psutil
    import torch

    from st_vi.losses import CachedDLELoss, CachedSupConNLILoss, DLELoss, SupConNLILoss

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        model = model_of(case, Path(name))
        if case.settings.get("gradient_checkpointing"):
            model[0].model.gradient_checkpointing_enable()
        held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
        losses: Any = {"viclsr": (SupConNLILoss, CachedSupConNLILoss), "vipolyqwen": (DLELoss, CachedDLELoss)}
        loss = losses[case.system][case.cached](model)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, fused=True)
        process = psutil.Process()
        before = process.memory_info().rss - held
        features, labels = inputs_of(case, model)
        found = planned(case, str(Path(name, "base")), features)
        model.train()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begun = 0.0
        for number in range(1 + steps):  # the first one is not timed: it makes what later ones find
            begun = time.process_time() if number == 1 else begun
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "autocast"):
                value = loss([dict(column) for column in features], labels)
                value = sum(value.values()) if isinstance(value, dict) else value
            value.backward()
            optimizer.step()
        seconds = (time.process_time() - begun) / steps
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    return found | {"measured": peak - before, "seconds": seconds}


def planned(case: Case, base: str, features: list[dict[str, Any]]) -> dict[str, float]:
    """The plan for the case."""
    from st_vi.recipes.plan import plan_training

    length = max(int(column["attention_mask"].sum(1).max()) for column in features if "pixel_values" not in column)
    plan = plan_training(
        base,
        rows=case.rows,
        max_length=length,
        batch_size=case.rows,
        inputs=len(features),
        mini_batch=32,
        pixels=case.pixels,
        precision=case.precision,  # type: ignore[arg-type]
        dimension=128,
        **case.settings,
    )
    way = plan.cached if case.cached else plan.at_once
    return {"peak": way.memory.peak, "flops": way.flops}


def speed_case(case: Case) -> Case:
    """The short run that measures the speed of a case."""
    return replace(case, rows=SPEED_ROWS, pixels=0, length=128, cached=False, settings={})


def run(case: Case, steps: int) -> dict[str, Any]:
    """A case in a process of its own."""
    code = f"import json; from tests.benchmarks.plan import *; print(json.dumps(train({case!r}, {steps})))"
    # glibc keeps freed tensors of changing shapes; given back, what is left is what is held.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def error(planned: float, measured: float) -> str:
    """Of a plan, in percent of what was measured."""
    return f"{100 * (planned / measured - 1):+.0f} %"


def main() -> None:
    """Print the table."""
    from st_vi.recipes.ablation.tables import markdown

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--only", default="", help="cases with this in their name")
    options = parser.parse_args()
    speeds: dict[str, float] = {}  # operations a second
    rows = []
    for name, case in CASES.items():
        if options.only not in name:
            continue
        short = speed_case(case)
        if repr(short) not in speeds:
            tried = run(short, 4 * options.steps)
            speeds[repr(short)] = tried["flops"] / tried["seconds"]
        speed, found = speeds[repr(short)], run(case, options.steps)
        measured, planned = found["measured"] / 2**20, found["peak"] / 2**20
        seconds = found["flops"] / speed
        rows.append([name, f"{planned:.0f}", f"{measured:.0f}", error(planned, measured)])
        rows[-1] += [
            f"{speed / 1e9:.0f}",
            f"{seconds:.2f}",
            f"{found['seconds']:.2f}",
            error(seconds, found["seconds"]),
        ]
        print(rows[-1], file=sys.stderr, flush=True)
    header = ["training", "planned MiB", "measured MiB", "error", "GFLOP/s", "planned s", "measured s", "error of time"]
    print(markdown(header, rows))


if __name__ == "__main__":
    main()
