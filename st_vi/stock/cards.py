"""sentence-transformers' data of a model card, with public names for the steps on the way to `README.md`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformerModelCardData


class CardData(ABC, SentenceTransformerModelCardData):
    """The stock card data, with three steps to override.

    - ``_model_card_text`` of a model is the card it was read with. Stock writes that text again when the model is
      saved, and sets ``save_dir`` right before. Without it, a model saved elsewhere would keep the code of its old
      folder.
    - ``_asset_path_to_url`` gives the place of a picture in the usage code; stock's is relative to nothing.
    - ``_set_multimodal_usage_examples`` chooses inputs with pictures for that code.

    If a name is gone, `tests/modules/test_model_card.py` fails: cards are plain stock cards then, whose code may not
    run.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "save_dir" and value and getattr(self, "model", None) is not None:
            text = self.model._model_card_text  # type: ignore[union-attr]
            if text:
                self.model._model_card_text = self.moved(text, Path(value))  # type: ignore[union-attr]

    @abstractmethod
    def moved(self, text: str, folder: Path) -> str:
        """A card that was read with the model, as it should read in another folder."""

    @abstractmethod
    def asset_place(self, path: str) -> str:
        """Where usage code finds a file of the model's folder."""

    @abstractmethod
    def set_picture_examples(self, dataset: Any) -> None:
        """Choose inputs with pictures for the usage code from these datasets, given by name."""

    def _asset_path_to_url(self, relative_path: str) -> str:
        return super()._asset_path_to_url(relative_path) if self.model_id else self.asset_place(relative_path)

    def _set_multimodal_usage_examples(self, dataset: Any) -> None:
        self.set_picture_examples(dataset)
