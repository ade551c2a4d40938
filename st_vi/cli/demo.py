"""``python -m st_vi demo``."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Annotated, Literal

import typer

from st_vi.cli.common import interruptible
from st_vi.cli.options import folder, refuse
from st_vi.cli.quiet import one_bar


def demo(
    context: typer.Context,
    system: Annotated[Literal["viclsr", "vipolyqwen"], typer.Option(help="text, or text and images")] = "viclsr",
    output: Annotated[Path, typer.Option(help="folder for the trained model", parser=folder)] = Path("outputs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="training epochs of viclsr")] = 2,
) -> None:
    """Demonstrate an included model; viclsr also trains. Downloads nothing."""
    if system == "vipolyqwen":
        refuse(context, "with --system vipolyqwen", "epochs")
    one_bar(context)
    with interruptible(lambda: "run the same command to start again"):
        if system == "viclsr":
            _demo_viclsr(output, epochs)
        else:
            _demo_pictures(output)


def _demo_viclsr(output: Path, epochs: int) -> None:
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
        "\nThe sample rows cannot be solved by word overlap: the model remembers the rows that it has seen, most of\n"
        "them from its own training, and hardly passes chance (50 %) on the others. On other datasets training\n"
        "helps, see docs/benchmarks.md."
    )
    typer.echo(f"\nThe trained model is in {result.trained}: st_vi.load({str(result.trained)!r})")


def _demo_pictures(output: Path) -> None:
    """Search images with the included model."""
    from st_vi.recipes.examples.demo_pictures import MODEL, run_picture_demo

    typer.echo(f"Encoding 60 images with {MODEL} …", err=True)
    result = run_picture_demo(folder=output / "pictures")
    typer.echo(f"Six queries to {len(result.pictures)} images, in {output / 'pictures'}:\n")
    for answer in result.answers:
        typer.echo(f"  {answer.query}\n  {'✓' if answer.right else '✗'} {answer.score:.2f}  {answer.found}\n")
    typer.echo(f"{'share that comes first for its own text':<42}{'written':>9}{'no diacritics':>15}")
    for kind, (marked, bare) in result.found.items():
        typer.echo(f"  {kind:<40}{100 * marked:>8.0f}%{100 * bare:>14.0f}%")
    typer.echo(f"\nA question about one image: {result.question}")
    for text, score in result.options[:5]:
        typer.echo(f"  {'✓' if text == result.answer else ' '} {score:5.2f}  {text}")
