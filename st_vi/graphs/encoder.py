"""Text encoding with an exported ONNX graph, on onnxruntime or OpenVINO.

This module does not import torch.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm
from transformers import AutoTokenizer

from st_vi.checks import check_whole
from st_vi.inputs.as_list import as_list
from st_vi.inputs.prompts import prompt_of
from st_vi.text.segmentation import segment_words, segmenter

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config_st_vi_onnx.json"

Run = Callable[[dict[str, np.ndarray]], np.ndarray]

_END = 2**16  # bytes
_TOKENIZED_AT_ONCE = 1024  # texts; the output of the tokenizer is much larger than the ids
_SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": lambda a, b: _unit(a) @ _unit(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -np.stack([np.linalg.norm(row - b, axis=1) for row in a]),
    "manhattan": lambda a, b: -np.stack([np.abs(row - b).sum(axis=1) for row in a]),
}


class OnnxEncoder:
    """Runs a model exported by `export_onnx` on CPU; pooling, head and normalisation are part of the graph.

    Needs ``pip install "st-vi[onnx]"``, and for OpenVINO also ``pip install openvino``.

    Args:
        path: Folder written by `export_onnx`.
        file_name: Graph in the folder, such as "model_int8.onnx" from `quantize_onnx`, which needs onnxruntime.
        runtime: "onnxruntime" or "openvino".
        dtype: "bfloat16" needs OpenVINO, is fast on CPUs that support it (AMX, AVX512_BF16), and changes vectors
            slightly (`docs/benchmarks.md`).
        threads: Threads per batch; None lets the runtime choose, usually one per core.

    Raises:
        ImportError: The runtime is not installed, or pyvi is not and the model segments words.
        FileNotFoundError: The folder has no such graph or no configuration.
        ValueError: The runtime is unknown, or does not support the dtype.

    Example:
        >>> from st_vi.encoding import OnnxEncoder
        >>> encoder = OnnxEncoder("outputs/onnx", runtime="openvino", dtype="bfloat16")  # doctest: +SKIP
        >>> encoder.encode(["Trời mưa to.", "Ngoài trời mưa lớn."]).shape  # doctest: +SKIP
        (2, 1024)
    """

    def __init__(
        self,
        path: str | Path,
        file_name: str = MODEL_FILE,
        *,
        runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
        dtype: Literal["float32", "bfloat16"] = "float32",
        threads: int | None = None,
    ) -> None:
        if (runtime, dtype) not in _RUNTIMES:
            known = ", ".join(" in ".join(pair) for pair in _RUNTIMES)
            raise ValueError(f"there is no {runtime!r} in {dtype!r}, but {known}")
        folder = Path(path)
        for name in (file_name, CONFIG_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} has no {name}: st_vi.encoding.export_onnx writes it")
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        self.max_seq_length: int | None = config["max_seq_length"]
        self.prompts: dict[str, str] = config["prompts"]
        self.default_prompt_name: str | None = config["default_prompt_name"]
        self.similarity_fn_name: str = config["similarity_fn_name"]
        self.embedding_dimension: int = config["embedding_dimension"]
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._segment = segment_words if config["segment_words"] else None
        if self._segment:
            segmenter()  # fail now, not at the first text, if pyvi is missing
        self._graph = folder / file_name, runtime, dtype, threads, config.get("export", "")
        self.run: Run = _opened(*self._graph)

    def __getstate__(self) -> dict[str, Any]:
        """All but the session, which cannot be copied: copies and other processes open the graph again."""
        return {name: value for name, value in vars(self).items() if name != "run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.run = _opened(*self._graph)

    def encode(
        self,
        sentences: str | Iterable[str],
        batch_size: int = 32,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        normalize_embeddings: bool = False,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Encode like ``SentenceTransformer.encode``, in batches of similar token counts, the longest first.

        Args:
            sentences: A text, or several in a list, a column, a Series, an array or a generator.
            batch_size: Texts per batch.
            prompt_name: Name of a prompt of the model; None for its default, if any.
            prompt: Text to prepend; takes precedence over `prompt_name`.
            normalize_embeddings: Whether to scale vectors to length 1.
            show_progress_bar: Whether to show a progress bar.

        Returns:
            A float32 array (len(sentences), D) in the order of the texts, or (D,) for a single text.

        Raises:
            TypeError: An input is not a text.
            ValueError: `batch_size` is not positive, the prompt is unknown, an input or the prompt is not valid
                Unicode, the texts are in a table or a set, or `sentences` is None or a number.
        """
        check_whole("batch_size", batch_size)
        texts, single = as_list(sentences)
        tokens = self._tokenize(texts, prompt_of(self, prompt, prompt_name) or "")
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        embeddings = np.empty((len(tokens), self.embedding_dimension), dtype=np.float32)
        with tqdm(total=len(tokens), desc="Texts", disable=not show_progress_bar) as progress:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                embeddings[batch] = self.run(self._padded([tokens[i] for i in batch]))
                progress.update(len(batch))
        embeddings = _unit(embeddings) if normalize_embeddings else embeddings
        return embeddings[0] if single else embeddings

    def features(self, texts: list[str], prompt: str = "") -> dict[str, np.ndarray]:
        """What `run` takes to give vectors (B, D): ``input_ids`` and ``attention_mask`` (B, N).

        Raises:
            TypeError: An input is not a text.
            ValueError: An input is not valid Unicode.
        """
        return self._padded(self._tokenize(texts, prompt))

    def similarity(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Similarities (A, B) of embeddings (A, D) and (B, D), by the similarity function of the model."""
        return _SIMILARITIES[self.similarity_fn_name](np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))

    def _tokenize(self, texts: list[str], prompt: str) -> list[np.ndarray]:
        """Token ids of each text, with special tokens, without padding."""
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"input {number} is not a text but {type(text).__name__}")
            try:  # tokenizers reject strings with unpaired surrogates
                (prompt + text).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"input {number}, {prompt + text!r:.100}, is no Unicode text: {error}") from error
        # Like the modules: segment only the text, then prepend the prompt.
        texts = [prompt + (self._segment(text) if self._segment else text) for text in texts]
        limit = {"truncation": True, "max_length": self.max_seq_length} if self.max_seq_length else {}
        tokens: list[np.ndarray] = []
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            ids = self.tokenizer(texts[start : start + _TOKENIZED_AT_ONCE], **limit)["input_ids"]
            tokens += [np.asarray(row, dtype=np.int32) for row in ids]  # a tenth of the size of a list
        return tokens

    def _padded(self, tokens: list[np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs of the graph for a batch."""
        lengths = np.array([len(row) for row in tokens])
        attention_mask = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(attention_mask.shape, self.tokenizer.pad_token_id, dtype=np.int64)
        input_ids[attention_mask] = np.concatenate(tokens)
        return {"input_ids": input_ids, "attention_mask": attention_mask.astype(np.int64)}


def _opened(file: Path, runtime: str, dtype: str, threads: int | None, export: str) -> Run:
    try:
        run = _RUNTIMES[runtime, dtype](file, threads)
    except ImportError:
        raise
    except Exception as error:  # each runtime has kinds of its own
        raise ValueError(f"{file} cannot be read by {runtime}: export the model again ({error})") from error
    with file.open("rb") as graph:  # its metadata are at the end, also in one that was quantized
        graph.seek(-min(_END, file.stat().st_size), os.SEEK_END)
        if export.encode() not in graph.read():
            raise ValueError(
                f"{file} is of another model than the tokenizer and settings here, as after a second export to the "
                "folder: load that anew, with 8 bits after quantize_onnx"
            )
    return run


def _onnxruntime(file: Path, threads: int | None) -> Run:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError('an ONNX graph needs onnxruntime: pip install "st-vi[onnx]"') from error
    options = onnxruntime.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _openvino(file: Path, threads: int | None, precision: str) -> Run:
    try:
        import openvino
    except ImportError as error:
        raise ImportError('runtime="openvino" needs OpenVINO: pip install openvino') from error
    # Always set: OpenVINO defaults to bfloat16 if the CPU supports it.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    return lambda inputs: compiled.infer_new_request(inputs)[0]  # a new one, because threads may encode concurrently


_RUNTIMES: dict[tuple[str, str], Callable[[Path, int | None], Run]] = {
    ("onnxruntime", "float32"): _onnxruntime,
    ("openvino", "float32"): partial(_openvino, precision="f32"),
    ("openvino", "bfloat16"): partial(_openvino, precision="bf16"),
}


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
