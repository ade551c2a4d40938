"""Tables put into the page of benchmarks."""

from __future__ import annotations

from pathlib import Path


def update_docs(name: str, text: str, path: Path = Path("docs/benchmarks.md")) -> None:
    """Put the text between the two marks of this name in the page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, begun, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{path} has no marks {begin} and {end}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
