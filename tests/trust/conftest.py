"""The count of fuzzed cases, file by file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers.fuzz import SEED, SHARE, answered, refused

NEVER_REFUSES = {"modules"}


@pytest.fixture(scope="module", autouse=True)
def counted(request: pytest.FixtureRequest) -> Iterator[None]:
    """If all tests of a file run, they have as many cases as it promises (`CASES`), some refused and some not."""
    before = answered + refused
    yield
    tests = {name for name in vars(request.module) if name.startswith("test_")}
    ran = {item.originalname for item in request.session.items if item.path == request.path}
    if not hasattr(request.module, "CASES") or tests - ran:
        return
    found = (answered + refused) - before
    for area, count in sorted(found.items()):
        print(f"\n{area:<20}{count:>8,} cases, {refused[area]:>6,} refused (ST_VI_FUZZ={SHARE:g}, seed {SEED})", end="")
        assert answered[area] > count / 10, area
        assert refused[area] > 10 * SHARE or area in NEVER_REFUSES, area
    assert found.total() >= request.module.CASES * SHARE
