"""An exported graph as the only module of a stock `SentenceTransformer`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from st_vi.graphs.encoder import MODEL_FILE, OnnxEncoder


class OnnxGraph(InputModule):
    """Runs a whole model, from token ids to the final vector, as one ONNX graph on the CPU.

    Everything that stock does with a model, such as ``encode``, prompts, ``truncate_dim`` and evaluators, stays
    available; token embeddings and training do not.

    `source` identifies the exported model, such as its `model_identity`; the rest is for an `OnnxEncoder`.
    """

    config_keys = ["file_name", "source"]  # noqa: RUF012

    def __init__(
        self, folder: str | Path, file_name: str = MODEL_FILE, source: str = "", threads: int | None = None
    ) -> None:
        super().__init__()
        self.folder, self.file_name, self.source = Path(folder), file_name, source
        self.encoder = OnnxEncoder(folder, file_name, threads=threads)
        self._longest = self.encoder.max_seq_length

    @property
    def tokenizer(self) -> Any:  # type: ignore[override]
        """That of the exported model; it cannot be replaced, as the graph has the embeddings of its tokens."""
        return self.encoder.tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """Maximum number of tokens; at most that of the exported model."""
        return self.encoder.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        if self._longest is not None and (value is None or value > self._longest):
            raise ValueError(f"the graph was exported for at most {self._longest} tokens, got {value}")
        self.encoder.max_seq_length = value

    def get_embedding_dimension(self) -> int:
        """Dimension of the vectors."""
        return self.encoder.embedding_dimension

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Token ids (B, N) and their mask."""
        if kwargs.get("processing_kwargs"):
            raise ValueError("an ONNX graph takes no processing_kwargs: its tokenizer is that of the exported model")
        texts = [item["text"] if isinstance(item, Mapping) and item.keys() == {"text"} else item for item in inputs]
        features = self.encoder.features(texts, prompt or "")
        return {name: torch.from_numpy(values) for name, values in features.items()}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add ``sentence_embedding`` (B, D)."""
        inputs = {name: features[name].numpy() for name in ("input_ids", "attention_mask")}
        embeddings: Tensor = torch.from_numpy(self.encoder.run(inputs))
        return {**features, "sentence_embedding": embeddings}

    def save(self, output_path: str, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: the exported model can be saved, or its graph with `export_onnx`."""
        raise ValueError(
            "a model on an ONNX graph cannot be saved: save the model it was exported from, or call "
            "st_vi.encoding.export_onnx on that"
        )
