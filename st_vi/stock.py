"""Names of other libraries that are not part of their public interface, each with what it stands for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import transformers.integrations.peft as transformers_adapters
import transformers.modeling_utils as transformers_models
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
    makes a table in its log, with the function that is replaced here. Other threads wait, as it is the process's.
    """

    def checked(*args: Any, **kwargs: Any) -> None:
        check(kwargs["model"], str(kwargs["pretrained_model_name_or_path"]), kwargs["loading_info"])
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
