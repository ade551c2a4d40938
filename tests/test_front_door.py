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


@pytest.mark.parametrize(
    ("statement", "unwanted"),
    [
        ("import st_vi", "torch sentence_transformers plotly umap PIL torchvision"),
        ("from st_vi import SupConNLILoss, MLPHead, build_viclsr, load", "plotly umap pyvi"),
    ],
)
def test_importing_pulls_nothing_that_was_not_asked_for(statement, unwanted):
    check = f"{statement}; import sys; print(*(set({unwanted!r}.split()) & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""


def test_rooms_are_reached_without_an_import_of_their_own():
    rooms = [room for room in st_vi._ROOMS if room != "viz"]  # which needs an extra
    code = f"import st_vi, sys; [getattr(st_vi, room).__name__ for room in {rooms}]; print('plotly' in sys.modules)"
    assert set(st_vi._ROOMS) <= set(dir(st_vi))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
