"""The `repr` of the losses."""

from __future__ import annotations

from typing import Any


class Settings:
    """Gives a loss a `repr` of its settings, as in the model card, instead of the hundreds of layers of its model."""

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())
        return f"{type(self).__name__}({settings})"
