"""ViCLSR on CPU: the same weights and real sentences under torch, onnxruntime and OpenVINO.

    python -m tests.benchmarks.backends
    python -m tests.benchmarks.backends --threads 2 --sentences 500

Backends that are not installed are left out: `pip install onnx onnxscript onnxruntime openvino` goes with any
transformers, `pip install "sentence-transformers[openvino]"` holds it at 5.5. All take turns in one process.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.backend import export_static_quantized_openvino_model

from st_vi.data import read_rows
from st_vi.graphs.encoder import OnnxEncoder
from st_vi.graphs.export import export_onnx, quantize_onnx
from st_vi.hub import load
from st_vi.recipes import build_viclsr
from st_vi.recipes.ablation.tables import markdown
from tests.benchmarks.timing import cells, seconds_by_turns
from tests.benchmarks.viclsr import BASE, DATA

Encode = Callable[[list[str]], np.ndarray]
TORCH = "torch, float32"
CALIBRATION = 400  # sentences for stock int8, none of them measured


def sentences(count: int) -> list[str]:
    """Distinct premises and hypotheses of XNLI, in the order of the file."""
    rows = read_rows(DATA / "nli" / "xnli_vi.jsonl")
    return list(dict.fromkeys(text for column in ("premise", "hypothesis") for text in rows[column]))[:count]


def on_graph(model: SentenceTransformer, folder: Path, threads: int) -> dict[str, Encode]:
    """The whole model as one graph (`export_onnx`), by the runtimes that are there."""
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        return {}
    export_onnx(model, folder)
    quantized = quantize_onnx(folder).name
    encoders = {
        "one graph, onnxruntime, float32": OnnxEncoder(folder, threads=threads),
        "one graph, onnxruntime, int8": OnnxEncoder(folder, quantized, threads=threads),
    }
    if find_spec("openvino"):
        for dtype in ("float32", "bfloat16"):
            encoders[f"one graph, OpenVINO, {dtype}"] = OnnxEncoder(
                folder, runtime="openvino", dtype=dtype, threads=threads
            )
    return {name: encoder.encode for name, encoder in encoders.items()}


def on_stock_openvino(
    model: SentenceTransformer, folder: Path, threads: int, calibration: list[str]
) -> dict[str, Encode]:
    """The stock backend: the transformer under OpenVINO, pooling and head under torch."""
    if not (find_spec("optimum") and find_spec("openvino")):
        return {}
    output = str(folder / "model")

    def loaded(precision: str, **settings: Any) -> SentenceTransformer:
        config = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": str(threads)}
        return load(output, backend="openvino", device="cpu", model_kwargs={"ov_config": config, **settings})

    model.save_pretrained(output)
    exported = loaded("f32", export=True)
    exported.save_pretrained(output)
    (folder / "texts").mkdir()
    rows = [json.dumps({"text": text}, ensure_ascii=False) for text in calibration]
    (folder / "texts" / "train.jsonl").write_text("\n".join(rows), encoding="utf-8")
    source = {"dataset_name": str(folder / "texts"), "dataset_config_name": "default"}
    source |= {"dataset_split": "train", "column_name": "text"}
    # It quantises `exported` itself as well, which is of no use from here on.
    export_static_quantized_openvino_model(exported, None, output, **source)
    int8 = {"file_name": "openvino/openvino_model_qint8_quantized.xml"}
    return {
        "stock backend, OpenVINO, float32": loaded("f32").encode,
        "stock backend, OpenVINO, bfloat16": loaded("bf16").encode,
        "stock backend, OpenVINO, int8": loaded("f32", **int8).encode,
    }


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row with its twin; vectors of length 1 in bfloat16 are not of length 1."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def measure(ways: dict[str, Encode], texts: list[str], runs: int) -> str:
    """Seconds of each way in turn, and the cosine of its vectors to those of torch in float32."""
    expected = ways[TORCH](texts)
    cosines = {name: cosine(encode(texts), expected) for name, encode in ways.items()}  # and warm
    timed = cells(seconds_by_turns(ways, texts, runs), TORCH)
    rows = [[name, *timed[name], f"{of.min():.5f}", f"{of.mean():.5f}"] for name, of in cosines.items()]
    header = [f"{len(texts):,} sentences", "seconds", "range", "faster", "least cosine", "mean cosine"]
    return markdown(header, rows)


def versions() -> str:
    """What is compared."""
    names = ("torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "optimum-intel")
    found = {dist.metadata["Name"]: dist.version for dist in importlib.metadata.distributions()}
    return ", ".join(f"{name} {found[name]}" for name in names if name in found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=800)
    parser.add_argument("--runs", type=int, default=7, help="of each way")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pooling", choices=["cls", "mean"], default="cls")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)  # the head is new
    load_before = os.getloadavg()[0]
    texts = sentences(options.sentences + CALIBRATION)
    texts, calibration = texts[: options.sentences], texts[options.sentences :]
    model = build_viclsr(BASE, pooling=options.pooling).cpu()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(str(folder / "torch"))
        half = load(folder / "torch", device="cpu", model_kwargs={"dtype": "bfloat16"}).bfloat16()
        ways: dict[str, Encode] = {TORCH: model.encode, "torch, bfloat16": half.encode}
        ways |= on_graph(model, folder / "onnx", options.threads)
        ways |= on_stock_openvino(model, folder, options.threads, calibration)
        table = measure(ways, texts, options.runs)
    print(f"{options.threads} thread(s); load of the machine {load_before:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(f"{versions()}\n\n{table}")


if __name__ == "__main__":
    main()
