"""How many cases the fuzz tests had; the last of their files by name, and so by order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trust.strategies import SEED, SHARE, answered, refused

LEAST = 20_000 * SHARE
AREAS = {
    *("images", "collator", "triplets", "formats", "splits", "files", "texts"),
    *("terms", "losses", "modules", "texts in models", "pictures in models"),
}
NEVER_REFUSES = {"modules"}


def test_as_many_cases_as_promised(request, record_property):
    files = {path.name for path in Path(__file__).parent.glob("test_fuzz_*.py")}
    if missing := files - {item.path.name for item in request.session.items}:
        pytest.skip(f"not all fuzz tests ran: {sorted(missing)} are missing")
    total = answered + refused
    assert total.keys() == AREAS
    lines = [f"{area:<20}{count:>8,} cases, {refused[area]:>6,} refused" for area, count in sorted(total.items())]
    lines.append(f"{'fuzzed in all':<20}{total.total():>8,} cases, {refused.total():>6,} refused")
    lines.append(f"ST_VI_FUZZ={SHARE:g} of all cases")
    lines.append(f"ST_VI_FUZZ_SEED={SEED}" if SEED else "ST_VI_FUZZ_SEED is not set: the same cases every time")
    record_property("shown", "\n".join(lines))
    assert total.total() >= LEAST
    # Both ends of the property are seen in every area: neither all input is bad, nor none.
    for area in AREAS:
        assert answered[area] > total[area] / 10, area
        assert refused[area] > 10 * SHARE or area in NEVER_REFUSES, area
