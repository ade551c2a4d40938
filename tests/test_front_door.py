"""The public names, and what importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import st_vi


def test_every_public_name_is_there():
    for name in st_vi.__all__:
        assert getattr(st_vi, name) is not None
    assert set(st_vi.__all__) == {"__version__", *st_vi._HOME}
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = st_vi.nothing


IMPORTS = """
import sys
import st_vi
print(*({*"torch sentence_transformers plotly umap PIL torchvision".split()} & {*sys.modules}))
from st_vi import SupConNLILoss, MLPHead, build_viclsr, load
print(*({*"plotly umap pyvi".split()} & {*sys.modules}))
names = [getattr(st_vi, room).__name__ for room in sys.argv[1:]]
print(*({"plotly"} & {*sys.modules}))
"""


def test_importing_pulls_nothing_that_was_not_asked_for():
    """Of the package, of some names, and of rooms that are reached without an import of their own."""
    rooms = [room for room in st_vi._ROOMS if room != "viz"]  # which needs an extra
    assert set(st_vi._ROOMS) <= set(dir(st_vi))
    result = subprocess.run([sys.executable, "-c", IMPORTS, *rooms], capture_output=True, text=True, check=True)
    assert result.stdout == "\n\n\n"
