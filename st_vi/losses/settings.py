"""The `repr` of the losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any


class Settings(ABC):
    """Gives a loss a `repr` of its settings, as in the model card, instead of the layers of its model."""

    @abstractmethod
    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())
        return f"{type(self).__name__}({settings})"
