"""Private parts of sentence-transformers' models, modules and losses."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from copy import copy
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses import merged_forward
from sentence_transformers.base.modules import Module, Transformer
from torch import nn
from transformers import PretrainedConfig


def load_with_classes(path_or_repo: str, classes: Mapping[str, type[Module]], **kwargs: Any) -> SentenceTransformer:
    """Load a saved model whose modules outside of sentence-transformers are `classes`, by their saved names.

    ``_load_with_module_classes`` does it without importing anything. The public way is ``trust_remote_code=True``,
    which would also run code that comes with the model.

    Args:
        path_or_repo: A folder or a repository.
        classes: The class for each ``type`` in `modules.json`.
        **kwargs: As for `SentenceTransformer`.
    """
    return SentenceTransformer._load_with_module_classes(path_or_repo, classes, **kwargs)


def with_modules(model: SentenceTransformer, modules: Mapping[str, Module]) -> SentenceTransformer:
    """A shallow copy of a model with other modules: the same prompts, similarity function and card.

    ``_modules`` is where torch keeps the parts of a module. A new `SentenceTransformer` would start a new card.

    Args:
        model: Left as it is.
        modules: The new modules by name, in order.
    """
    result = copy(model)
    result._modules = dict(modules)
    return result


def merging_disabled() -> bool:
    """Whether a stock loss around ours wants every column in a forward of its own.

    ``_MERGING_DISABLED`` is the switch that stock's own losses read. `AdaptiveLayerLoss` sets it, because it passes
    values from call to call inside the columns; merged, they would get lost.
    """
    return merged_forward._MERGING_DISABLED.get()


def reads_flat(model: Any) -> bool:
    """Whether all backbones of a model read padded inputs in one row, too (`OpenTransformer.reads_flat`)."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    backbones = [module for module in modules if isinstance(module, Transformer)]
    return bool(backbones) and all(getattr(backbone, "reads_flat", False) for backbone in backbones)


class OpenTransformer(Transformer):
    """The stock `Transformer`, with three private steps as methods to override, and one question.

    - ``_load_config`` comes before the weights: a wrong model is rejected before gigabytes are downloaded.
    - ``_load_model`` reads the weights.
    - ``_render_message_skeleton`` finds the tokens that the template puts after a text. Stock uses the tokenizer that
      also encodes, and changes its limit for a moment: texts in other threads would be truncated or padded wrongly.

    - ``_is_flash_attention_requested`` tells whether the model was built with some kind of FlashAttention.

    If a name disappears, wrong models load; `tests/modules/test_qwen2_vl.py` fails.
    """

    @abstractmethod
    def _check_config(self, name: str, config: PretrainedConfig, is_adapter: bool) -> None:
        """Raise where the base model, or an adapter, is none that this module can read."""

    @abstractmethod
    def _reading_weights(self) -> AbstractContextManager[None]:
        """What surrounds the reading of the weights."""

    @abstractmethod
    def _token_ids(self, text: str) -> list[int]:
        """The tokens of a text, neither cut nor padded."""

    @property
    def reads_flat(self) -> bool:
        """Whether inputs may be in one row without padding: FlashAttention keeps them apart."""
        return self._is_flash_attention_requested()

    def _load_config(self, model_name_or_path: str, *args: Any, **kwargs: Any) -> tuple[PretrainedConfig, bool]:
        config, is_adapter = super()._load_config(model_name_or_path, *args, **kwargs)
        self._check_config(model_name_or_path, config, is_adapter)
        return config, is_adapter

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        with self._reading_weights():
            return super()._load_model(*args, **kwargs)

    def _render_message_skeleton(
        self, conversation: Any, filler: str, chat_template_kwargs: dict[str, Any], *args: Any
    ) -> list[int]:
        skeleton = self._message_skeleton(conversation, filler)
        (rendered,) = self.processor.apply_chat_template([skeleton], tokenize=False, **chat_template_kwargs)
        return self._token_ids(rendered)
