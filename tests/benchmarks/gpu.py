"""Training steps of viPolyQwen at the size of Qwen2-VL-2B on a GPU: ``python -m tests.benchmarks.gpu``.

Random weights, bf16, the same mixed batch for all sides, which take turns in one process; given are medians:

- padded: one forward a column, as in stock;
- grouped: distinct inputs once, in groups of similar length;
- flattened: distinct inputs once, in one row without padding. Needs FlashAttention 2 (``pip install flash-attn``, with
  CUDA); without it, "missing" says so.

Prints one JSON object: seconds a step and peak memory of each side, how many times faster each is than padded, the
values of the loss, and the model-FLOPs utilisation (6 · weights · real tokens, of the vision tower and of the language
model each with its own tokens, against --peak). Needs 4.4 GB on disk under --folder. `--small` tries the script on a
small model and whatever device there is.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import Qwen2VLModel
from transformers.utils import is_flash_attn_2_available

from st_vi import DLELoss, build_vipolyqwen
from st_vi.losses import embed
from tests.benchmarks.real_size import save_processor_and_config
from tests.benchmarks.speed import drawn_questions, mixed_batch, small_vipolyqwen, text_pairs


def real_size(folder: Path, device: str) -> SentenceTransformer:
    """Qwen2-VL-2B's configuration with random weights in bf16."""
    config = save_processor_and_config(folder)
    config.dtype = torch.bfloat16
    with torch.device(device):
        base = Qwen2VLModel._from_config(config)
    base.save_pretrained(folder)
    del base
    return build_vipolyqwen(folder, max_pixels=448 * 448, model_kwargs={"dtype": torch.bfloat16}).to(device)


def flops(model: SentenceTransformer, columns: list[dict[str, Any]]) -> float:
    """Of forward and backward, without attention's own and without what is computed twice or for padding."""
    tower = model[0].model.visual
    vision = sum(p.numel() for p in tower.parameters())
    embeddings = model[0].model.get_input_embeddings().weight.numel()
    others = sum(p.numel() for p in model.parameters()) - vision - embeddings
    patches = sum(len(column["pixel_values"]) for column in columns if "pixel_values" in column)
    tokens = sum(int(column["attention_mask"].sum()) for column in columns)
    return 6.0 * (vision * patches + others * tokens)


def step(model: SentenceTransformer, side: str, columns: list[dict[str, Any]], labels: Tensor) -> dict[str, float]:
    """One forward and backward."""
    loss = DLELoss(model, embed_once=side != "padded")
    model.zero_grad(set_to_none=True)
    model[0].distinct_pictures.enabled = loss.embed_once
    _wait()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    with mock.patch.object(embed, "reads_flat", lambda _: side == "flattened"):
        value = sum(loss([dict(column) for column in columns], labels).values())
    value.backward()
    _wait()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return {"seconds": seconds, "peak_bytes": peak, "loss": float(value.detach())}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run(model: SentenceTransformer, rows: list[dict[str, Any]], runs: int, peak: float) -> dict[str, Any]:
    """All sides by turns, after two rounds that are not counted."""
    model.train()
    columns, labels = mixed_batch(model, rows)
    columns = [{k: v.to(model.device) if isinstance(v, Tensor) else v for k, v in c.items()} for c in columns]
    labels, work = labels.to(model.device), flops(model, columns)
    sides = ["padded", "grouped", *["flattened"] * model[0].reads_flat]
    found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for number in range(runs + 2):
        for side in sides:
            one = step(model, side, columns, labels)
            if number > 1:
                found[side].append(one)
    medians = {
        name: {side: statistics.median(one[name] for one in ones) for side, ones in found.items()}
        for name in ("seconds", "peak_bytes", "loss")
    }
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "torch": torch.__version__,
        "rows": len(rows),
        **medians,
        "times_padded": {side: medians["seconds"]["padded"] / value for side, value in medians["seconds"].items()},
        "model_flops_utilisation": {side: work / value / peak for side, value in medians["seconds"].items()},
        "peak_flops": peak,
        "missing": None if "flattened" in sides else _missing(),
    }


def _missing() -> str:
    if not torch.cuda.is_available():
        return "flattened: FlashAttention 2 needs a GPU with CUDA"
    if not is_flash_attn_2_available():
        return "flattened: FlashAttention 2 is not installed (pip install flash-attn)"
    return "flattened: FlashAttention 2 needs weights in half precision, which --small has not"


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", help="where the temporary folder is made")
    parser.add_argument("--rows", type=int, default=48, help="half of them with an image, three questions each")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--peak", type=float, default=989e12, help="bf16 FLOP/s, by default of an H100")
    parser.add_argument("--small", action="store_true")
    options = parser.parse_args()
    rows = drawn_questions(options.rows // 2, a_picture=3) + text_pairs(options.rows // 2)
    if options.small:
        model = small_vipolyqwen(rows)
        print(json.dumps(run(model, rows, options.runs, options.peak), indent=2))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        model = real_size(Path(folder), "cuda" if torch.cuda.is_available() else "cpu")
        print(json.dumps(run(model, rows, options.runs, options.peak), indent=2))


if __name__ == "__main__":
    main()
