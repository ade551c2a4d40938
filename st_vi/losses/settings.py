"""What all losses have: the model to train, and a `repr`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from st_vi.checks import check_model


class Settings(ABC):
    """Gives a loss its model, and a `repr` of its settings, as in the model card, instead of the layers of its model.

    Raises:
        ValueError: The model is a name, or nothing that can be trained.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not (model is None or isinstance(model, nn.Module)):  # None to compute from embeddings; wrapped, as in DDP
            check_model(model)
        self.model: Any = model

    @abstractmethod
    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())
        return f"{type(self).__name__}({settings})"
