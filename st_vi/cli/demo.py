"""Output of ``python -m st_vi demo``."""

from __future__ import annotations

import textwrap
from pathlib import Path

import typer


def demo_viclsr(output: Path, epochs: int) -> None:
    """Search, compare and train with the included encoder."""
    from st_vi.recipes.examples.demo import MODEL, SENTENCES, run_demo

    typer.echo(f"Searching with {MODEL}, then training ViCLSR from it: about a minute …", err=True)
    result = run_demo(output, epochs)
    typer.echo(f"\nSix questions to {result.searched} passages; the answers were held out in training:")
    for answer in result.answers:
        passage = textwrap.shorten(answer.passage, 90, placeholder=" …")
        typer.echo(f"\n  {answer.question}\n  {'✓' if answer.right else '✗'} {answer.score:.2f}  {passage}")
    marked, bare = (100 * share for share in result.found)
    typer.echo(
        f"\nOf all held-out questions, {marked:.0f} % find their passage first, {bare:.0f} % without diacritics."
    )
    typer.echo("\nCosines of three sentences; the second paraphrases the first:")
    for number, (sentence, row) in enumerate(zip(SENTENCES, result.similarities.tolist(), strict=True), 1):
        typer.echo(f"  {number}  " + "  ".join(f"{value:5.2f}" for value in row) + f"   {sentence}")
    typer.echo(f"\n{'ViCLSR on NLI rows':<30}{'before':>8}{'after':>8}")
    for name, (before, after) in result.figures.items():
        typer.echo(f"  {name:<28}{100 * before:>8.1f}{100 * after:>8.1f}")
    typer.echo(
        "\nThe sample rows cannot be solved by word overlap: training improves this model only a little on the rows\n"
        "it has seen, and not at all on the others. On other datasets training helps, see docs/benchmarks.md."
    )
    typer.echo(f"\nThe trained model is in {result.trained}: st_vi.load({str(result.trained)!r})")
