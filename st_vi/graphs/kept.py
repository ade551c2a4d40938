"""Graphs of models, exported once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from contextlib import ExitStack
from copy import copy
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from sentence_transformers import SentenceTransformer

from st_vi.checks import check_choice, check_model
from st_vi.files.cache import cache_folder
from st_vi.files.folders import unfinished
from st_vi.graphs.encoder import MODEL_FILE, OnnxEncoder
from st_vi.graphs.export import INT8_FILE, export_onnx, lowest_cosine, quantize_onnx
from st_vi.graphs.module import OnnxGraph
from st_vi.identity import model_identity
from st_vi.stock.cpu import multiplies_bytes
from st_vi.stock.models import with_modules

logger = logging.getLogger(__name__)

GraphDtype = Literal["auto", "float32", "int8"]

CLOSE = 0.99
"""Lowest cosine to the model's own vectors that 8-bit weights may have, on sample texts."""

_EXPORTERS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_exporting = threading.Lock()  # the exporter of torch is not for several threads


def on_graph(model: SentenceTransformer, dtype: GraphDtype = "auto") -> SentenceTransformer:
    """The model as one ONNX graph: a stock `SentenceTransformer` with the same vectors, prompts and `truncate_dim`.

    The graph is exported at the first call and kept in ``~/.cache/st_vi/onnx`` (``ST_VI_CACHE`` changes the folder), by
    a hash of the model's weights and settings. It uses as many threads as torch does at the time of the call.

    The dtype "auto" is 8 bits where the CPU has instructions for them (VNNI) and the vectors stay `CLOSE`, otherwise
    float32.
    """
    check_model(model)
    check_choice("dtype", dtype, GraphDtype)
    whole = copy(model)
    whole.truncate_dim = None  # cut after the graph, so that it can be changed
    source = model_identity(whole)
    folder = _kept(whole, source)
    close = (folder / INT8_FILE).is_file()
    if dtype == "int8" and not close:
        raise ValueError(f"with 8-bit weights, vectors of this model have cosines below {CLOSE}: use dtype 'float32'")
    if dtype == "auto" and multiplies_bytes() and not close:
        logger.warning(f"with 8-bit weights, vectors of this model have cosines below {CLOSE}: float32 is used")
    eight_bits = dtype == "int8" or (dtype == "auto" and close and multiplies_bytes())
    try:
        graph = OnnxGraph(folder, INT8_FILE if eight_bits else MODEL_FILE, source, torch.get_num_threads())
    except ImportError:
        raise
    except Exception as error:  # onnxruntime raises many kinds
        raise ValueError(f"{folder} cannot be read: {error}. Delete it to export the graph again") from error
    return with_modules(model, {"0": graph})


def _kept(model: SentenceTransformer, source: str) -> Path:
    """The folder of a model's graphs in the cache, written on first use, completely or not at all."""
    versions = [f"{name} {version(name)}" for name in _EXPORTERS if _installed(name)]
    key = hashlib.sha256("\n".join([source, *versions]).encode()).hexdigest()[:32]
    folder = cache_folder("onnx") / key
    with _exporting:
        if not folder.is_dir():
            _export(model, folder)
    return folder


def _export(model: SentenceTransformer, folder: Path) -> None:
    with ExitStack() as stack:
        try:
            new = stack.enter_context(unfinished(folder))
        except OSError as error:
            raise OSError(
                error.errno, f"{error.strerror}: set ST_VI_CACHE to a folder for exported graphs", str(folder.parent)
            ) from error
        export_onnx(model, new)
        eight_bits = quantize_onnx(new)
        if not lowest_cosine(OnnxEncoder(new, INT8_FILE, threads=1), model) >= CLOSE:
            eight_bits.unlink()
        try:
            os.rename(new, folder)
        except OSError:
            if not folder.is_dir():  # another process was not faster
                raise


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except ModuleNotFoundError:  # PackageNotFoundError is one; export_onnx says what is missing
        return False
