"""Private parts of transformers: its report on loaded weights, and the names under which it saves them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import transformers.integrations.peft as transformers_adapters
import transformers.modeling_utils as transformers_models
from transformers.utils.loading_report import log_state_dict_report

CheckWeights = Callable[[Any, str, Any], None]
_one_at_a_time = threading.RLock()


@contextmanager
def watched_reading(check: CheckWeights) -> Iterator[None]:
    """Call ``check(model, place, loading_info)`` whenever transformers has read the weights of a model or adapter.

    transformers fills in missing weights at random, and tells so only in a table in its log, made by
    `log_state_dict_report`. That function is replaced here, in both modules that call it. ``loading_info`` has
    ``missing_keys``, ``unexpected_keys`` and ``mismatched_keys``; the first two are taken out of the table, as `check`
    has seen them. The function belongs to the whole process: other threads that watch wait, and those that read other
    models without watching get it as it was.

    If transformers no longer calls it, nothing is checked; `tests/modules/test_whole_backbone.py` fails.
    """

    watching = threading.get_ident()

    def checked(*args: Any, **kwargs: Any) -> None:
        if threading.get_ident() != watching:
            log_state_dict_report(*args, **kwargs)
            return
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


def forget_renamings(backbone: Any) -> None:
    """Let a transformers model be saved under the names that its weights have now.

    ``_weight_conversions`` are the renamings of the last `from_pretrained` or `load_adapter`, which saving undoes.
    Those of an adapter put ``base_model.model.`` before every name, also after the adapter has been merged.
    """
    vars(backbone).pop("_weight_conversions", None)
