"""Private parts of PEFT: the layers that it puts in place of a model's own."""

from __future__ import annotations

from typing import Any

from torch import nn

from st_vi.stock.weights import forget_renamings


def refuse_disabled(backbone: Any, todo: str) -> None:
    """Refuse a model with disabled adapters, which PEFT would merge, and save as enabled; `todo` says what to call.

    Raises:
        ValueError: The adapters are disabled.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    layers = (layer for layer in backbone.modules() if isinstance(layer, (BaseTunerLayer, AuxiliaryTrainingWrapper)))
    if any(layer.disable_adapters for layer in layers):
        raise ValueError(f"the model's adapters are disabled: call {todo}")


def merge_adapter(backbone: Any) -> None:
    """Fold the active adapters into the weights of a transformers model, in place; the others are dropped.

    transformers puts adapters in with `add_adapter` and cannot merge them. These are the steps of PEFT's
    `merge_and_unload`, which needs a `PeftModel` around the model: every `BaseTunerLayer` (LoRA) and
    `AuxiliaryTrainingWrapper` (trainable token embeddings) gives its place to the merged layer.

    Args:
        backbone: With at least one adapter.

    Raises:
        ValueError: The adapters are disabled.
    """
    refuse_disabled(backbone, "model.enable_adapters() to merge them")
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    wrappers: dict[str, Any] = {
        name: layer
        for name, layer in backbone.named_modules()
        if isinstance(layer, (BaseTunerLayer, AuxiliaryTrainingWrapper))
    }
    for name, layer in wrappers.items():
        parent, _, child = name.rpartition(".")
        if parent not in wrappers:  # else its parent merges it
            setattr(backbone.get_submodule(parent), child, _merged(layer))
    backbone.delete_adapter(list(backbone.peft_config))
    forget_renamings(backbone)
    forget_place(backbone)


def forget_place(backbone: Any) -> None:
    """Forget where the weights came from: they are in no file now, and a new adapter would name the old as its base."""
    backbone.name_or_path = ""


def check_base(backbone: Any) -> None:
    """Check that adapters, which are saved without their base, can be loaded again.

    Raises:
        ValueError: They name no base.
    """
    for adapter in (getattr(backbone, "peft_config", None) or {}).values():
        if not adapter.base_model_name_or_path:
            raise ValueError(
                "the weights under the adapter are in no file, as after a merge, so that it could not be loaded again: "
                "save the model without it (model.save_pretrained), load that, and add the adapter to it"
            )


def _merged(layer: Any) -> nn.Module:
    if hasattr(layer, "unload_and_optionally_merge_module"):
        return layer.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    layer.merge()
    return layer.get_base_layer()
