"""Check that a loss was made with the model that is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sentence_transformers import SentenceTransformer
from torch import nn

L = TypeVar("L", bound=nn.Module)


def own_losses(loss: Any, kind: type[L]) -> list[L]:
    """Every loss of a kind among what the stock trainer takes for its loss, those inside of others included.

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
    """Check that `loss` was made with `model`, and every loss within it too.

    A loss embeds with its own model, and the optimizer of the trainer has the weights of `model` only: with another
    one in the loss, nothing would be trained.

    Args:
        loss: As for the stock trainer: a loss, losses by the name of their data set, or a function that makes one from
            a model. Further models of a loss, such as a guide, may be others.
        model: The model to train.

    Raises:
        ValueError: A loss has another model, or none.

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
        raise ValueError(f"{name} was made {made}. Create it with the model that you train: {name}(model, …)")
