"""ONNX export and quantization of text models, for `OnnxEncoder`."""

from __future__ import annotations

import copy
import json
import logging
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import fullname
from torch import Tensor, nn

from st_vi.checks import check_model
from st_vi.graphs.encoder import CONFIG_FILE, MODEL_FILE, OnnxEncoder
from st_vi.identity import model_identity
from st_vi.modules import WordSegmentedTransformer

INT8_FILE = "model_int8.onnx"

_ONE_FILE = 2**30  # bytes of weights; protobuf allows twice that, larger weights are stored beside the graph
# Says that onnxruntime's preparation (shapes, constants) is done, as it is by the exporter; else quantizing warns.
_PREPARED = {"onnx.quant.pre_process": "onnxruntime.quant"}
_SAMPLES = [
    "Xin chào!",
    "Hà Nội là thủ đô của Việt Nam.",
    unicodedata.normalize("NFD", "TIẾNG VIỆT có dấu"),
    "",
    "bao gio duoc hoan ve",
    "Mấy giờ thư viện mở cửa vào thứ bảy?",
    "Cửa hàng giảm giá 30 % cho đơn từ 500.000 đồng, trừ các mặt hàng điện tử và sách giáo khoa.",
]


def export_onnx(model: SentenceTransformer, path: str | Path) -> Path:
    """Export a text model as one ONNX graph with tokenizer and configuration, for `OnnxEncoder`.

    The graph contains the whole model, from token ids to the vector returned by ``encode``, including pooling, head and
    normalisation, for any batch size and length. It is run once to verify that its vectors equal those of the model.
    Weights are exported in float32; the model itself and its `truncate_dim` stay unchanged.

    Needs ``pip install "st-vi[onnx]"``.

    Args:
        model: A `Transformer` or `WordSegmentedTransformer`, followed by any modules of sentence-transformers and
            `st_vi` that need only its tokens and the attention mask.
        path: Output folder; created if needed.

    Returns:
        The file of the graph, ``path/model.onnx``. Weights above one gigabyte are in ``model.onnx.data`` beside it.

    Raises:
        ImportError: onnx, onnxscript or onnxruntime is not installed.
        ValueError: The model accepts more than text; a module is from neither sentence-transformers nor `st_vi`, or
            cannot be exported; or the vectors of the graph differ from those of the model.

    Example:
        >>> from st_vi import build_viclsr
        >>> from st_vi.encoding import export_onnx, quantize_onnx
        >>> file = export_onnx(build_viclsr("vinai/phobert-base-v2"), "outputs/onnx")  # doctest: +SKIP
        >>> quantize_onnx(file.parent)  # doctest: +SKIP
        PosixPath('outputs/onnx/model_int8.onnx')
    """
    check_model(model)
    _check_modules(model)
    _require_onnx()
    model = copy.deepcopy(model).to("cpu", torch.float32).eval()
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MODEL_FILE
    with torch.autocast("cpu", enabled=False):  # the graph is in float32
        export = model_identity(model)
        _export_graph(model, file, export)
        model.tokenizer.save_pretrained(str(folder))
        model[0].config.save_pretrained(str(folder))  # type: ignore[operator,union-attr]  # names the tokenizer class
        _save_config(model, folder / CONFIG_FILE, export)
        _check_vectors(model, file)
    return file


def quantize_onnx(path: str | Path, file_name: str = INT8_FILE, **settings: Any) -> Path:
    """Quantize an exported graph to 8-bit weights with the dynamic quantization of onnxruntime.

    Weights, including embeddings, are rounded once, per channel in linear layers. Activations are quantized at run
    time, so no calibration data is needed. The effect on vectors depends on the model: compare before use.

    Args:
        path: Folder written by `export_onnx`.
        file_name: Name of the new graph in the folder.
        **settings: Options of ``onnxruntime.quantization.quantize_dynamic``, which override the defaults
            ``weight_type=QInt8`` and ``per_channel=True``. Use ``reduce_range=True`` on a CPU without VNNI.

    Returns:
        The file of the new graph, for ``OnnxEncoder(path, file_name=…)``.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        FileNotFoundError: There is no exported graph.
        ValueError: `file_name` is no name in the folder that ends in ".onnx", or that of the exported graph.
    """
    _require_onnx()
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source, target = Path(path, MODEL_FILE), Path(path, file_name)
    if file_name == MODEL_FILE or target.name != file_name or target.suffix != ".onnx":
        raise ValueError(
            f"file_name must be the name of a new graph in the folder, such as {INT8_FILE}, got {file_name!r}"
        )
    if not source.is_file():
        raise FileNotFoundError(f"{path} has no {MODEL_FILE}: export_onnx writes it")
    defaults = {"weight_type": QuantType.QInt8, "per_channel": True}
    with _own_log():
        quantize_dynamic(source, target, **defaults | settings)
    return target


@contextmanager
def _own_log() -> Iterator[None]:
    """Keep the root logger as it is: where it has no handler, the first message of onnxruntime would give it one.

    ``logging.basicConfig``, which the application may call later, would then do nothing.
    """
    last = logging.lastResort
    if logging.root.handlers or last is None:
        yield
        return
    logging.root.addHandler(last)  # what prints messages where there is no handler
    try:
        yield
    finally:
        logging.root.removeHandler(last)


class _ModuleError(ValueError):
    """A module cannot be traced; names the module, which the errors of the exporter do not."""


class _Pipeline(nn.Module):
    """All modules of a model, from token ids (B, N) and their mask to embeddings (B, D)."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.parts = nn.ModuleList(model)
        self.truncate_dim = model.truncate_dim

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        for part in self.parts:
            try:
                features = part(features)
            except Exception as error:  # many kinds, from a missing feature to a branch on values
                raise _ModuleError(f"{fullname(part)} cannot be exported to ONNX: {error}") from error
        return features["sentence_embedding"][:, : self.truncate_dim]


def _check_modules(model: SentenceTransformer) -> None:
    for module in model:
        if not fullname(module).startswith(("sentence_transformers.", "st_vi.")):
            raise ValueError(f"{fullname(module)} is a module of neither sentence-transformers nor st_vi")
        if not getattr(module, "include_prompt", True):
            raise ValueError(f"{fullname(module)} leaves out the prompt's tokens, which the graph cannot identify")
    if not isinstance(model[0], Transformer) or model[0].tokenizer is None or model.modalities != ["text"]:
        raise ValueError(
            f"only models for text whose first module is a Transformer can be exported to ONNX; this one begins with "
            f"{fullname(model[0])} and takes {', '.join(map(str, model.modalities))}"
        )
    if model[0].backend != "torch":
        raise ValueError(f'load the model with backend="torch": {model[0].backend} is an export already')


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError('ONNX needs onnx, onnxruntime and onnxscript: pip install "st-vi[onnx]"') from error


def _export_graph(model: SentenceTransformer, file: Path, export: str) -> None:
    pipeline = _Pipeline(model).eval()
    features = model[0].preprocess(_SAMPLES[:2])  # type: ignore[operator]  # of different lengths, so that padding is traced
    inputs = {name: features[name] for name in ("input_ids", "attention_mask")}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")}
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.filterwarnings("ignore", "# The axis name")  # both inputs have the same axes
            graph = torch.onnx.export(
                pipeline,
                kwargs=inputs,
                dynamo=True,
                input_names=list(inputs),
                output_names=["sentence_embedding"],
                dynamic_shapes=dict.fromkeys(inputs, axes),
                verbose=False,
            )
            graph.model.metadata_props.update(_PREPARED | {"st_vi.export": export})  # type: ignore[union-attr]
            file.with_name(CONFIG_FILE).unlink(missing_ok=True)  # nobody reads the folder before all is there
            graph.save(file, external_data=size > _ONE_FILE)  # type: ignore[union-attr]
    except Exception as error:
        # The error of the exporter is pages long and wraps the useful one.
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, _ModuleError):
            cause = cause.__cause__ or cause.__context__
        modules = ", ".join(fullname(module) for module in model)
        raise ValueError(str(cause or f"{modules} cannot be exported to ONNX: {error}")) from error


def _save_config(model: SentenceTransformer, file: Path, export: str) -> None:
    limit = model.max_seq_length
    config = {
        "max_seq_length": limit if limit and limit < 10**9 else None,  # transformers writes "no limit" as 10³⁰
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "similarity_fn_name": model.similarity_fn_name,
        "embedding_dimension": model.get_embedding_dimension(),
        "segment_words": isinstance(model[0], WordSegmentedTransformer),
        "export": export,  # also in the graph, and in those that are quantized from it
    }
    file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def lowest_cosine(encoder: OnnxEncoder, model: SentenceTransformer) -> float:
    """The lowest cosine between vectors of a graph and of its model, over sample texts; −1 if one is not a number."""
    a, b = encoder.encode(_SAMPLES), model.encode(_SAMPLES, show_progress_bar=False)
    cosines = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-12)
    return float(cosines.min()) if np.isfinite(cosines).all() else -1.0


def _check_vectors(model: SentenceTransformer, file: Path) -> None:
    """Check that graph and model agree: an operator may differ, or a module may preprocess texts differently."""
    expected = model.encode(_SAMPLES, show_progress_bar=False)
    found = OnnxEncoder(file.parent, threads=1).encode(_SAMPLES)
    difference = np.abs(found - expected).max() / np.abs(expected).max()
    if not difference < 1e-3:
        for written in file.parent.glob(f"{file.name}*"):
            written.unlink()
        modules = ", ".join(fullname(module) for module in model)
        raise ValueError(f"the graph's vectors differ from the model's by {difference:.1e} of the largest: {modules}")
