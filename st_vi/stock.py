"""Names of other libraries that are not part of their public interface, each with what it stands for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import transformers.integrations.peft as transformers_adapters
import transformers.modeling_utils as transformers_models
from sentence_transformers import SentenceTransformerModelCardData
from transformers.utils.loading_report import log_state_dict_report

CheckWeights = Callable[[Any, str, Any], None]
_one_at_a_time = threading.RLock()


def forget_renamings(backbone: Any) -> None:
    """Let a transformers model be saved under the names that its weights have.

    ``_weight_conversions`` are the renamings of the last `from_pretrained` or `load_adapter`, undone on saving. Those
    of an adapter put ``base_model.model.`` before the names of a model that has no adapter any more.
    """
    vars(backbone).pop("_weight_conversions", None)


@contextmanager
def watched_reading(check: CheckWeights) -> Iterator[None]:
    """Call ``check(model, place, loading_info)`` for all weights, of models and adapters, that transformers reads.

    ``loading_info`` has ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``; of the first two, transformers
    makes a table in its log, with the function that is replaced here: what passes the check is no news. Other threads
    wait, as it is the process's.
    """

    def checked(*args: Any, **kwargs: Any) -> None:
        check(kwargs["model"], str(kwargs["pretrained_model_name_or_path"]), kwargs["loading_info"])
        kwargs["loading_info"] = copy(kwargs["loading_info"])
        kwargs["loading_info"].missing_keys, kwargs["loading_info"].unexpected_keys = set(), set()
        log_state_dict_report(*args, **kwargs)

    with _one_at_a_time:
        places: tuple[Any, ...] = (transformers_models, transformers_adapters)
        before = [place.log_state_dict_report for place in places]
        try:
            for place in places:
                place.log_state_dict_report = checked
            yield
        finally:
            for place, function in zip(places, before, strict=True):
                place.log_state_dict_report = function


class CardData(SentenceTransformerModelCardData):
    """The stock data of a model card, with names for what stock calls on the way to `README.md`.

    Stock sets ``save_dir`` right before it writes the card of a model, made anew or (``_model_card_text``) as it was
    read with the model; asks ``_asset_path_to_url`` for the place of a picture that code shows; and, of a model that
    takes pictures, ``_set_multimodal_usage_examples`` for the inputs of that code.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "save_dir" and value and getattr(self, "model", None) is not None:
            text = self.model._model_card_text  # type: ignore[union-attr]
            if text:
                self.model._model_card_text = self.moved(text, Path(value))  # type: ignore[union-attr]

    def moved(self, text: str, folder: Path) -> str:
        """A card that was read with the model, as it is to be saved in another folder."""
        raise NotImplementedError

    def asset_place(self, path: str) -> str:
        """Where code finds what lies at this path in the model's folder."""
        raise NotImplementedError

    def set_picture_examples(self, dataset: Any) -> None:
        """Take inputs with pictures for the code, of some of these data sets by name."""
        raise NotImplementedError

    def _asset_path_to_url(self, relative_path: str) -> str:
        return super()._asset_path_to_url(relative_path) if self.model_id else self.asset_place(relative_path)

    def _set_multimodal_usage_examples(self, dataset: Any) -> None:
        self.set_picture_examples(dataset)
