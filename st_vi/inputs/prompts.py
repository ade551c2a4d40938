"""The prompt in front of an input."""

from __future__ import annotations

import logging
from typing import Any

logger = logging.getLogger(__name__)


def prompt_of(model: Any, prompt: str | None = None, prompt_name: str | None = None) -> str | None:
    """The prompt that ``model.encode`` would take: the one given, the one named, or the model's default.

    Args:
        model: Has ``prompts``, by name, and a ``default_prompt_name``, which may be None.
        prompt: Goes before `prompt_name`, with a warning if both are given.
        prompt_name: One of the model's prompts.

    Returns:
        None where the model has no default.

    Raises:
        TypeError: `prompt` is no text, such as a list of prompts.
        ValueError: There is no prompt of that name.

    Example:
        >>> from types import SimpleNamespace
        >>> from st_vi.inputs.prompts import prompt_of
        >>> model = SimpleNamespace(prompts={"ocr": "<ocr> "}, default_prompt_name=None)
        >>> prompt_of(model, prompt_name="ocr")
        '<ocr> '
    """
    if prompt is not None:
        if not isinstance(prompt, str):
            raise TypeError(f"the prompt is not a text but {type(prompt).__name__}: {prompt!r:.100}")
        if prompt_name is not None:
            logger.warning(f"both a prompt and a prompt_name are given: {prompt_name!r} is ignored")
        return prompt
    if prompt_name is not None and prompt_name not in model.prompts:
        raise ValueError(f"there is no prompt {prompt_name!r}; the model's prompts are {sorted(model.prompts)}")
    return model.prompts.get(model.default_prompt_name if prompt_name is None else prompt_name)
