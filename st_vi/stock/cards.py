"""Private parts of sentence-transformers' model cards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from sentence_transformers import SentenceTransformerModelCardData

_ROWS = 100
"""Of a data set that stock describes its columns by."""


class CardData(ABC, SentenceTransformerModelCardData):
    """The stock card data, with three steps to override, and two that are changed.

    - ``_model_card_text`` of a model is the card it was loaded with. Stock writes it again when the model is saved, and
      sets ``save_dir`` right before. Unchanged, its code would load the old folder.
    - The name given to ``save_pretrained`` becomes the ``model_id``, by which the code loads the model from the Hub.
      What can be no repository there is the ``model_name`` instead, the title of the card.
    - ``_asset_path_to_url`` gives the place of an image in the usage code.
    - ``_set_multimodal_usage_examples`` chooses inputs with images for that code.
    - ``_compute_column_stats`` describes a column of the rows by its first value, which is none in rows of mixed tasks.

    If a name disappears, cards become plain stock cards, whose code may not run; `tests/modules/test_model_card.py`
    fails.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "model_id" and value and not _is_repository(value):
            super().__setattr__("model_name", value)
            value = None
        super().__setattr__(name, value)
        if name == "save_dir" and value and getattr(self, "model", None) is not None:
            text = self.model._model_card_text  # type: ignore[union-attr]
            if text:
                self.model._model_card_text = self.moved(text, Path(value))  # type: ignore[union-attr]

    @abstractmethod
    def moved(self, text: str, folder: Path) -> str:
        """Adapt a card that was loaded with the model to another folder."""

    @abstractmethod
    def asset_place(self, path: str) -> str:
        """The path by which usage code finds a file in the model's folder."""

    @abstractmethod
    def set_picture_examples(self, dataset: Any) -> None:
        """Choose inputs with images for the usage code from these datasets, given by name."""

    def _asset_path_to_url(self, relative_path: str) -> str:
        return super()._asset_path_to_url(relative_path) if self.model_id else self.asset_place(relative_path)

    def _set_multimodal_usage_examples(self, dataset: Any) -> None:
        self.set_picture_examples(dataset)

    def _compute_column_stats(self, dataset: Dataset, column: str, task: str | None = None) -> dict[str, Any]:
        if column in dataset.column_names:  # and not made by a transform
            some = dataset.select(range(min(len(dataset), _ROWS)))
            missing = some.with_format("arrow", columns=[column])[:][column].is_null(nan_is_null=True).to_pylist()
            known = [row for row, is_missing in enumerate(missing) if not is_missing]
            if not known:
                return {"dtype": "empty", "modality": "", "data": {}}
            dataset = some.select(known)
        return super()._compute_column_stats(dataset, column, task)


def _is_repository(name: str) -> bool:
    """Whether a repository on the Hub can have this name, with that of its owner."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name
