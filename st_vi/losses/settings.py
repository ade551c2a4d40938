"""How the losses show themselves."""

from __future__ import annotations

from typing import Any


class Settings:
    """A `repr` of the settings, as they stand in the model card, and not of the model's hundreds of layers."""

    def get_config_dict(self) -> dict[str, Any]:
        """Settings for the model card."""
        raise NotImplementedError

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self.get_config_dict().items())
        return f"{type(self).__name__}({settings})"
