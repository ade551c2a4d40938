"""A text encoder as one ONNX graph, from tokens to the finished vector: run here, made in `onnx_export`.

Nothing in this module needs torch: onnxruntime or OpenVINO computes, and the tokenizer of transformers reads the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm.auto import tqdm
from transformers import AutoTokenizer

from st_vi.inputs.as_list import as_list
from st_vi.inputs.prompts import prompt_of
from st_vi.text.segmentation import segment_words, segmenter

MODEL_FILE = "model.onnx"
CONFIG_FILE = "config_st_vi_onnx.json"

Run = Callable[[dict[str, np.ndarray]], np.ndarray]

_TOKENIZED_AT_ONCE = 1024  # texts; what the tokenizer gives for them is far larger than their ids
_SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": lambda a, b: _unit(a) @ _unit(b).T,
    "dot": lambda a, b: a @ b.T,
    "euclidean": lambda a, b: -np.stack([np.linalg.norm(row - b, axis=1) for row in a]),
    "manhattan": lambda a, b: -np.stack([np.abs(row - b).sum(axis=1) for row in a]),
}


class OnnxEncoder:
    """What `export_onnx` wrote, run on CPU: pooling, head and norm are part of the graph.

    Needs ``pip install "st-vi[onnx]"``; to run it by OpenVINO, also ``pip install openvino``.

    Args:
        path: The folder that `export_onnx` wrote.
        file_name: Which graph in it, such as the "model_int8.onnx" of `quantize_onnx`, which is for onnxruntime.
        runtime: What computes: "onnxruntime" or "openvino".
        dtype: In what. "bfloat16" is for OpenVINO, fast on CPUs that have instructions for it (AMX, AVX512_BF16),
            and moves vectors a little (`docs/benchmarks.md`).
        threads: That compute one batch; None is the runtime's choice, one for each core.

    Raises:
        ImportError: The runtime is not installed; or pyvi, where the model segments words.
        FileNotFoundError: The folder has no such graph, or no configuration.
        ValueError: The runtime is not known, or does not compute in that dtype.

    Example:
        >>> from st_vi.encoding.onnx import OnnxEncoder
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
                raise FileNotFoundError(f"{folder} has no {name}: st_vi.encoding.onnx_export.export_onnx writes it")
        config: dict[str, Any] = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        self.max_seq_length: int | None = config["max_seq_length"]
        self.prompts: dict[str, str] = config["prompts"]
        self.default_prompt_name: str | None = config["default_prompt_name"]
        self.similarity_fn_name: str = config["similarity_fn_name"]
        self.embedding_dimension: int = config["embedding_dimension"]
        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._segment = segment_words if config["segment_words"] else None
        if self._segment:
            segmenter()  # fail now, not at the first text, where pyvi is missing
        self._run = _RUNTIMES[runtime, dtype](folder / file_name, threads)

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
        """Encode as ``SentenceTransformer.encode`` does; batches are of like numbers of tokens, the longest first.

        Args:
            sentences: A text, or several in a list, a column, a Series, an array or a generator.
            batch_size: Texts a batch.
            prompt_name: Of one of the model's prompts; None is the model's default, if it has one.
            prompt: A text to put before each; goes before `prompt_name`.
            normalize_embeddings: Whether to bring vectors to length 1 that do not have it.
            show_progress_bar: Whether to show one, in texts.

        Returns:
            An array (len(sentences), D) of float32 in the order of the texts; (D,) for a single one.

        Raises:
            TypeError: An input is not a text.
            ValueError: `batch_size` is not positive, the prompt is not known, an input or the prompt is no Unicode
                text, or the texts are in a table or a set.
        """
        if batch_size <= 0:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        texts, single = as_list(sentences)
        tokens = self._tokenize(texts, prompt_of(self, prompt, prompt_name) or "")
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        embeddings = np.empty((len(tokens), self.embedding_dimension), dtype=np.float32)
        with tqdm(total=len(tokens), desc="Texts", disable=not show_progress_bar) as progress:
            for start in range(0, len(order), batch_size):
                batch = order[start : start + batch_size]
                embeddings[batch] = self._run(self._padded([tokens[i] for i in batch]))
                progress.update(len(batch))
        embeddings = _unit(embeddings) if normalize_embeddings else embeddings
        return embeddings[0] if single else embeddings

    def similarity(self, embeddings1: np.ndarray, embeddings2: np.ndarray) -> np.ndarray:
        """Compare all of one (A, D) with all of another (B, D), by the model's own similarity function: (A, B)."""
        return _SIMILARITIES[self.similarity_fn_name](np.atleast_2d(embeddings1), np.atleast_2d(embeddings2))

    def _tokenize(self, texts: list[str], prompt: str) -> list[np.ndarray]:
        """The token ids of each text, with special tokens and without padding."""
        for number, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"input {number} is not a text but {type(text).__name__}")
            try:  # a string with half of a surrogate pair is no Unicode, and no tokenizer takes it
                (prompt + text).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"input {number}, {prompt + text!r:.100}, is no Unicode text: {error}") from error
        # As the modules do: words are segmented in the text alone, then comes the prompt.
        texts = [prompt + (self._segment(text) if self._segment else text) for text in texts]
        limit = {"truncation": True, "max_length": self.max_seq_length} if self.max_seq_length else {}
        tokens: list[np.ndarray] = []
        for start in range(0, len(texts), _TOKENIZED_AT_ONCE):
            ids = self.tokenizer(texts[start : start + _TOKENIZED_AT_ONCE], **limit)["input_ids"]
            tokens += [np.asarray(row, dtype=np.int32) for row in ids]  # a tenth of the memory of a list
        return tokens

    def _padded(self, tokens: list[np.ndarray]) -> dict[str, np.ndarray]:
        """What the graph reads, of one batch with the longest first."""
        lengths = np.array([len(row) for row in tokens])
        attention_mask = np.arange(lengths[0]) < lengths[:, None]
        input_ids = np.full(attention_mask.shape, self.tokenizer.pad_token_id, dtype=np.int64)
        input_ids[attention_mask] = np.concatenate(tokens)
        return {"input_ids": input_ids, "attention_mask": attention_mask.astype(np.int64)}


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
    # Said in either case: by itself OpenVINO takes bfloat16 wherever the CPU has it.
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(str(file), "CPU", settings)
    return lambda inputs: compiled.infer_new_request(inputs)[0]  # a new one: threads may encode at the same time


_RUNTIMES: dict[tuple[str, str], Callable[[Path, int | None], Run]] = {
    ("onnxruntime", "float32"): _onnxruntime,
    ("openvino", "float32"): partial(_openvino, precision="f32"),
    ("openvino", "bfloat16"): partial(_openvino, precision="bf16"),
}


def _unit(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=-1, keepdims=True), 1e-12)
