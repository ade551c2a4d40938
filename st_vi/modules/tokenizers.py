"""Copies of tokenizers, for use next to the one that a model encodes with."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

_copies: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy for calls with other settings than `encode` uses, such as no limit or no padding.

    A fast tokenizer keeps its truncation and padding settings between calls. If one thread encodes while another asks
    the same tokenizer for all tokens of a text, each may get the other's settings, without an error.

    Args:
        tokenizer: A model's tokenizer, copied once, and again after tokens were added.

    Example:
        >>> from st_vi.modules.tokenizers import own_tokenizer
        >>> tokens = own_tokenizer(model.tokenizer)(text, truncation=False)["input_ids"]  # doctest: +SKIP
    """
    tokens, own = _copies.get(tokenizer, (0, None))
    if tokens != len(tokenizer):
        own = copy.deepcopy(tokenizer)
        _copies[tokenizer] = len(tokenizer), own
    return own
