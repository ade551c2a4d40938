"""LoRA (arXiv 2106.09685) for viPolyQwen, with trainable embeddings of the prefixes."""

from __future__ import annotations

import copy
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from st_vi.checks import check_model
from st_vi.modules import Qwen2VLTransformer
from st_vi.modules.qwen2_vl import check_adapters
from st_vi.stock.adapters import forget_place, merge_adapter, refuse_disabled

if TYPE_CHECKING:
    from peft import LoraConfig

_LANGUAGE_MODEL = r"language_model\..*\.(q|k|v|o|gate|up|down)_proj"
_VISION_TOWER = r"visual\.blocks\..*\.(qkv|proj|fc1|fc2|gate_proj|up_proj|down_proj)"


def lora_config(rank: int = 16, vision: bool = False) -> LoraConfig:
    """LoRA for every linear layer of the language model and, if `vision`, of the vision tower.

    The tower is frozen by default: the paper gives it a tenth of the learning rate, so it hardly changes, and the
    layers between tower and language model were trained on far more images than a LoRA run uses. *Inferred*, because
    the paper trains all weights: the layers, the rank and ``lora_alpha = 2 * rank``. As a rule of thumb, not measured
    here, use about ten times the learning rate of full training: 2e-4 instead of 2e-5.

    Args:
        rank: Rank of the matrices; 16 adds 18 million weights to the 2.2 billion of Qwen2-VL-2B.
        vision: Whether to add LoRA to the vision tower, where `learning_rate_mapping` applies to it.

    Raises:
        ImportError: PEFT is not installed, or transformers is older than 5.18.

    Example:
        >>> from st_vi.recipes import lora_config
        >>> lora_config(rank=8).lora_alpha  # doctest: +SKIP
        16
    """
    layers = f"{_LANGUAGE_MODEL}|{_VISION_TOWER}" if vision else _LANGUAGE_MODEL
    return _peft().LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=layers)


def add_lora(backbone: Qwen2VLTransformer, config: LoraConfig, base_rows: int) -> None:
    """Freeze `backbone`, and add LoRA and trainable embeddings of its prefixes with the stock ``add_adapter``.

    The saved base model must have spare embeddings for the prefixes among its `base_rows`.
    """
    if config.trainable_token_indices is not None:
        raise ValueError("do not set trainable_token_indices in the LoRA config: the prefixes' ids are filled in")
    if "embed_tokens" in (config.modules_to_save or ()):
        raise ValueError("modules_to_save: leave out embed_tokens, of which the prefixes' rows are trained already")
    if config.use_dora:
        raise ValueError("use_dora: transformers cannot read the magnitudes of a saved DoRA again; use LoRA")
    tokenizer: Any = backbone.tokenizer
    ids = tokenizer.convert_tokens_to_ids(backbone.prefixes)
    if ids and max(ids) >= base_rows:
        raise ValueError(
            f"the base model has {base_rows} embeddings, and none to spare for the prefixes {backbone.prefixes}: the "
            "adapter could not be loaded again. Call model.resize_token_embeddings on the base model, save it, and "
            "start LoRA from there."
        )
    config = copy.deepcopy(config)
    # The only embeddings in the adapter: without them, the prefixes would be lost on reload.
    config.trainable_token_indices = ids or None
    backbone.model.add_adapter(config)


def merge_lora(model: SentenceTransformer) -> None:
    """Merge the adapter into the weights of the backbone, in place, so that ``save_pretrained`` saves a complete model.

    The merged model needs neither PEFT nor the files of the base model, and encodes as fast as the base model. Vectors
    change only by rounding in the dtype of the weights. All active adapters are merged, and the others are removed.

    Args:
        model: A model with a LoRA adapter, trained or loaded.

    Raises:
        ImportError: PEFT is not installed.
        ValueError: `model` has no adapter, or all of them are disabled.

    Example:
        >>> from st_vi import load
        >>> from st_vi.recipes import merge_lora
        >>> model = load("outputs/vipolyqwen-lora")  # doctest: +SKIP
        >>> merge_lora(model)  # doctest: +SKIP
        >>> model.save_pretrained("outputs/vipolyqwen")  # doctest: +SKIP
    """
    check_model(model)
    peft = _peft()
    for module in model.modules():
        if isinstance(module, Transformer) and isinstance(module.model, peft.PeftModel):  # wrapped by PEFT
            refuse_disabled(module.model, "enable_adapter_layers() of the PEFT model to merge them")
            module.model = module.model.merge_and_unload()
            forget_place(module.model)
            return
    backbone: Any = model.transformers_model
    if not getattr(backbone, "peft_config", None):
        raise ValueError("the model has no adapter to merge")
    merge_adapter(backbone)


def _peft() -> ModuleType:
    try:
        import peft
    except ImportError as error:
        raise ImportError('LoRA needs PEFT: pip install "st-vi[lora]"') from error
    check_adapters()
    return peft
