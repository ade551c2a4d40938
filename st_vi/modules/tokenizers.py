"""A tokenizer for one's own use, beside the one that a model encodes with."""

from __future__ import annotations

import copy
from typing import Any
from weakref import WeakKeyDictionary

_copies: WeakKeyDictionary[Any, tuple[int, Any]] = WeakKeyDictionary()


def own_tokenizer(tokenizer: Any) -> Any:
    """A copy, for calls with other settings than `encode` has: without its limit, say, or without padding.

    A fast tokenizer keeps truncation and padding from call to call. Where one thread encodes and another asks the same
    tokenizer for all tokens of a text, both get what either of them has set, without an error.

    Args:
        tokenizer: Of a model. It is copied once, and anew when it has got more tokens.

    Example:
        >>> from st_vi.modules.tokenizers import own_tokenizer
        >>> tokens = own_tokenizer(model.tokenizer)(text, truncation=False)["input_ids"]  # doctest: +SKIP
    """
    tokens, own = _copies.get(tokenizer, (0, None))
    if tokens != len(tokenizer):
        own = copy.deepcopy(tokenizer)
        _copies[tokenizer] = len(tokenizer), own
    return own
