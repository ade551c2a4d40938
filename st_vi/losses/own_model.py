"""Check that a loss was created with the model to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sentence_transformers import SentenceTransformer
from torch import nn

L = TypeVar("L", bound=nn.Module)


def own_losses(loss: Any, kind: type[L]) -> list[L]:
    """All losses of a kind in the `loss` argument of the stock trainer, including nested ones.

    Example:
        >>> from st_vi import DLELoss, SupConNLILoss
        >>> from st_vi.losses.own_model import own_losses
        >>> [type(loss).__name__ for loss in own_losses({"a": DLELoss(None), "b": SupConNLILoss(None)}, DLELoss)]
        ['DLELoss']
    """
    if isinstance(loss, Mapping):
        return [found for part in loss.values() for found in own_losses(part, kind)]
    return [part for part in loss.modules() if isinstance(part, kind)] if isinstance(loss, nn.Module) else []


def check_own_model(loss: Any, model: SentenceTransformer) -> None:
    """Check that `loss`, including nested losses, was created with `model`.

    A loss embeds with its own model, but the optimizer of the trainer has only the weights of `model`: if they differ,
    nothing is trained.

    Args:
        loss: As for the stock trainer: a loss, losses by dataset, or a function that creates one from a model.
            Additional models of a loss, such as a guide, may differ.
        model: The model to train.

    Raises:
        ValueError: A loss has another model or none.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from sentence_transformers.sentence_transformer.modules import BoW
        >>> from st_vi import SupConNLILoss
        >>> from st_vi.losses.own_model import check_own_model
        >>> model, other = (SentenceTransformer(modules=[BoW(["xin", "chào"])]) for _ in range(2))
        >>> check_own_model(SupConNLILoss(other), model)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: SupConNLILoss was made with another model than the one to train: neither would learn. ...
    """
    if isinstance(loss, Mapping):
        for part in loss.values():
            check_own_model(part, model)
        return
    for part in loss.modules() if isinstance(loss, nn.Module) else ():
        own = getattr(part, "model", model)
        if own is model or not (own is None or isinstance(own, SentenceTransformer)):
            continue
        name = type(part).__name__
        made = "without a model" if own is None else "with another model than the one to train: neither would learn"
        raise ValueError(f"{name} was made {made}. Create it with the model to train: {name}(model, …)")
