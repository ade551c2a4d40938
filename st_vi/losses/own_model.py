"""Check that a loss was created with the model to train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from sentence_transformers import SentenceTransformer
from torch import nn

L = TypeVar("L", bound=nn.Module)


def own_losses(loss: Any, kind: type[L]) -> list[L]:
    """All losses of a kind in the `loss` argument of the stock trainer, including nested ones, each once.

    Example:
        >>> from st_vi import DLELoss, SupConNLILoss
        >>> from st_vi.losses.own_model import own_losses
        >>> [type(loss).__name__ for loss in own_losses({"a": DLELoss(None), "b": SupConNLILoss(None)}, DLELoss)]
        ['DLELoss']
    """
    if isinstance(loss, Mapping):
        return list(dict.fromkeys(found for part in loss.values() for found in own_losses(part, kind)))
    return [part for part in loss.modules() if isinstance(part, kind)] if isinstance(loss, nn.Module) else []


def made_with(loss: Any, model: SentenceTransformer) -> Any:
    """The `loss` argument of the stock trainer, with losses in place of functions that create one, as stock does.

    Example:
        >>> from st_vi import SupConNLILoss
        >>> from st_vi.losses.own_model import made_with
        >>> made_with({"nli": SupConNLILoss}, None)["nli"].term.temperature
        0.05
    """
    if isinstance(loss, Mapping):
        return {name: made_with(part, model) for name, part in loss.items()}
    return loss(model) if callable(loss) and not isinstance(loss, nn.Module) else loss


def check_own_model(loss: Any, model: SentenceTransformer) -> None:
    """Check that `loss`, including nested losses, was created with `model`.

    A loss embeds with its own model, but the optimizer of the trainer has only the weights of `model`: if they differ,
    nothing is trained.

    Args:
        loss: A loss, or losses by dataset; functions are not called (`made_with`). Additional models of a loss, such as
            a guide, may differ.
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
