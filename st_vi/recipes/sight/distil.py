"""A small viPolyQwen from a text encoder: first it reads letters as text, then as images, then it sees."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
import torch.nn.functional as F
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import Tensor

from st_vi.data import split_by_anchor
from st_vi.files.folders import alone_in, unfinished
from st_vi.files.lines import write_whole
from st_vi.hub import load
from st_vi.identity import fingerprint, model_identity
from st_vi.model_files import name_and_content, read_json
from st_vi.recipes.distil.draw import check_documents, draw_questions, draw_texts
from st_vi.recipes.sight.base import MAX_PIXELS, SIZES, Teacher, small_vipolyqwen
from st_vi.recipes.sight.deeper import add_layers
from st_vi.recipes.sight.half import STATE, HalfPrecision, Step, learn, save_whole, write_record
from st_vi.recipes.sight.letters import add_letters, alphabet, letters_step, remove_letters
from st_vi.recipes.sight.scenes import scene_texts
from st_vi.recipes.sight.seeing import DEEPER, MORE_TEXT, READING, SEEING, Asked, Named, Scenes, Seeing
from st_vi.recipes.sight.text import Pairs, Texts, draw_paragraphs, kept_targets, text_step
from st_vi.recipes.sight.tower import compile_layers
from st_vi.recipes.training.manifest import identity_of_rows
from st_vi.recipes.vipolyqwen import build_vipolyqwen
from st_vi.text.variants import vary

LOG = "log.jsonl"
SETTINGS = "settings.json"
FEWEST_PAIRS = 8
"""Questions with paragraphs: a batch has runs of four."""


@dataclass(frozen=True)
class Stage:
    """What one stage trains with.

    Attributes:
        name: "text", "letters", "seeing", "reading", "deeper" or "more_text".
        steps: Batches.
        learning_rate: At its highest, after `warm_up` steps; then down a cosine.
        rates: Part of a parameter's name → factor of its learning rate.
        warm_up: Steps.
        new_layers: Layers that a language model from random weights has more from here on, see `add_layers`. They learn
            at the whole rate. A pretrained one (`base`) keeps those that it has.
    """

    name: str
    steps: int
    learning_rate: float
    rates: tuple[tuple[str, float], ...] = ()
    warm_up: int = 50
    new_layers: int = 0


STAGES: tuple[Stage, ...] = (
    Stage("text", 1200, 1e-3),
    Stage("letters", 2000, 2e-3),
    Stage("seeing", 2500, 4e-4, (("visual", 1.0), ("", 0.5))),
    Stage("reading", 44_000, 6e-4, (("visual", 1.0), ("", 0.5))),
    Stage("deeper", 20_000, 5e-4, (("visual", 0.8), ("", 0.5)), 200, new_layers=2),
    Stage("more_text", 11_500, 4e-4, (("visual", 0.5), ("", 1.0)), 200),
)
"""Text; what is written in a cell; scenes and named images; all together with images of text; two layers more; text
again. From "seeing" to "deeper" the language model learns at half the rate, but for its new layers."""
_NAMES = tuple(stage.name for stage in STAGES)


class Centred:
    """A teacher's vectors with their mean taken off, of unit length: their cosines then use the whole scale.

    Args:
        model: The teacher; stays what it is.
        texts: Whose mean is taken off.
        batch_size: Texts.
    """

    def __init__(self, model: SentenceTransformer, texts: Sequence[str], batch_size: int = 64) -> None:
        self.model, self.batch_size = model, batch_size
        self.centre = self._encode(texts).mean(dim=0)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D), fp32."""
        return F.normalize(self._encode(texts) - self.centre, dim=1)

    def _encode(self, texts: Sequence[str]) -> Tensor:
        found: Any = self.model.encode(
            list(texts), batch_size=self.batch_size, convert_to_tensor=True, show_progress_bar=False
        )
        return F.normalize(found.float().cpu(), dim=1)


def distill_vipolyqwen(
    teacher: str | Path,
    documents: Callable[[], Sequence[Dataset]],
    output: str | Path,
    *,
    shares: Sequence[float] | None = None,
    texts: Iterable[str] = (),
    named: Sequence[Named] = (),
    asked: Sequence[Asked] = (),
    base: str | Path | None = None,
    num_texts: int = 290_000,
    num_paragraphs: int = 20_000,
    num_pairs: int = 35_000,
    num_scenes: int = 6_000,
    sizes: dict[str, Any] = SIZES,
    stages: Sequence[Stage] = STAGES,
    batch_size: int = 128,
    seed: int = 0,
    resume: bool = False,
    compiled: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> SentenceTransformer:
    """A viPolyQwen that has the vectors of a text encoder, for texts and for what images say.

    What the model learns is where texts lie in the vectors of the teacher, less their mean (`Centred`):

    1. **text**: texts of the documents and of what will be seen, half of them typed in other ways (`vary`), and
       questions with their paragraphs. The token embeddings begin as the teacher's vectors of the tokens.
    2. **letters**: drawn phrases, half of them in black on white. A patch should tell the letters in it, and a visual
       token be the embedding of what is written in its cell (`reading_losses`), so that the language model reads
       images with what it knows of text. Only the tower trains.
    3. **seeing**: scenes with captions, questions and dialogues, named images, questions about images; each has the
       vector of its text, or of its answer.
    4. **reading**: the same, with images of phrases, sentences and paragraphs, and the batches of the second stage.
    5. **deeper**: the same with more text, questions and names, and with two layers more (`add_layers`).
    6. **more_text**: mostly text, and images so that they are not forgotten.

    The regression is cosine and similarities on text, cosine and the choice among the texts of the batch on images;
    no negatives are drawn through the model. The paper's own terms come after it: `train_vipolyqwen` takes the result.

    Everything is kept in `output`, every two minutes: with `resume` the same call goes on where an earlier one stopped.

    Source: regression on a text encoder's vectors is Reimers & Gurevych 2020 (arXiv 2004.09813); the token embeddings
    are those of model2vec; that a cell is what is written in it is this project's own.

    Args:
        teacher: A text encoder, such as "vi-mini".
        documents: Gives datasets of paragraphs, with columns title and text.
        output: A folder.
        shares: Share of each set of documents; None for equal shares.
        texts: Further texts for the first stage, such as everyday language.
        named: Images with names.
        asked: Questions about images, with answers.
        base: A Qwen2-VL to start from; None makes a small one with a tokenizer of its own.
        num_texts: Number of texts from documents.
        num_paragraphs: Number of whole paragraphs from documents, in addition to the texts.
        num_pairs: Number of questions with paragraphs, from documents.
        num_scenes: Number of scenes to draw.
        sizes: Sizes of the small model, see `small_qwen2_vl`.
        stages: See `STAGES`; more steps than before lengthen the last stage that was begun.
        batch_size: Texts in a batch; the other sizes follow it.
        seed: Seed for all sampling.
        resume: Continue an earlier run.
        compiled: Whether to compile the layers, which needs a C++ compiler and is twice as fast on a CPU.
        progress: Told what begins.

    Returns:
        The model; `output` has it too, in ``model/``.

    Raises:
        ValueError: An unknown stage; a folder with an earlier run and no `resume`, or one with other settings;
            another process at work in the folder; a stage begun with other settings, or over with other steps. Before
            the run is recorded: documents that are not Vietnamese, or give too few questions.

    Example:
        >>> from st_vi.data import read_rows
        >>> from st_vi.recipes.sight.distil import distill_vipolyqwen
        >>> model = distill_vipolyqwen(
        ...     "vi-mini", lambda: [read_rows("wiki.jsonl")], "outputs/poly-mini"
        ... )  # doctest: +SKIP
    """
    if unknown := [stage.name for stage in stages if stage.name not in _NAMES]:
        raise ValueError(f"there is no stage {unknown[0]!r}; there are {', '.join(_NAMES)}")
    output = Path(output)
    log = partial(write_record, output / LOG)
    texts = list(texts)
    sets = documents()
    large = load(str(teacher), device="cpu")
    settings: dict[str, Any] = {
        "documents": [identity_of_rows(rows)["identity"] for rows in sets],
        "teacher": model_identity(large),
        "base": base and name_and_content(base),
        "num_texts": num_texts,
        "num_paragraphs": num_paragraphs,
        "num_pairs": num_pairs,
    }
    settings |= {"num_scenes": num_scenes, "sizes": sizes, "seed": seed, "shares": shares and list(shares)}
    settings["batch_size"] = batch_size
    settings |= {name: _described(rows) for name, rows in (("texts", texts), ("named", named), ("asked", asked))}
    with alone_in(output):
        _check(output, settings, resume)
        progress("texts and the teacher's vectors")
        material = _prepare(
            large, sets, shares, texts, output, settings, log,
            pictured=[*pictured_texts(named, asked), *scene_texts(num_scenes * 3 // 2, seed)],
            base=base, num_texts=num_texts, num_paragraphs=num_paragraphs, num_pairs=num_pairs, sizes=sizes, seed=seed,
        )  # fmt: skip
        model = load(str(output / "start"), device="cpu")
        model[0].model.set_attn_implementation("eager")  # type: ignore[union-attr,operator]  # short inputs: faster so
        if compiled:
            compile_layers(model)
        words = text_step(model, material.texts, material.pairs, size=batch_size)

        letters = letters_step(model, material.texts.texts, size=batch_size * 3 // 8)

        def pictures(shares: Mapping[str, float]) -> Step:
            scenes = Scenes(output / "scenes.npy", num_scenes, seed)
            seeing = Seeing(model, material.teacher, material.texts, scenes, named, asked)
            return seeing.step(words, letters, shares)

        steps: dict[str, Callable[[], Step]] = {
            "text": lambda: words,
            "letters": lambda: letters,
            "seeing": lambda: pictures(SEEING),
            "reading": lambda: pictures(READING),
            "deeper": lambda: pictures(DEEPER),
            "more_text": lambda: pictures(MORE_TEXT),
        }
        begun = [number for number, stage in enumerate(stages) if (output / stage.name / STATE).exists()]
        for number, stage in enumerate(stages):
            progress(f"{stage.name}: {stage.steps} steps")
            torch.manual_seed(seed)  # what a stage adds to the model is the same in a run that goes on here
            if stage.name != "text":
                add_letters(model, len(alphabet(material.texts.texts)))
            new = add_layers(model, stage.new_layers) if base is None else []
            if new and compiled:
                compile_layers(model)  # the new ones are not
            training = HalfPrecision(model, stage.learning_rate, dict.fromkeys(new, 1.0) | dict(stage.rates))
            learn(
                training,
                steps[stage.name](),
                stage.steps,
                output / stage.name,
                seed=seed,
                warm_up=stage.warm_up,
                log=partial(_of_stage, log, stage.name),
                is_over=any(later > number for later in begun),
            )
            training.to_single()
        remove_letters(model)
        model.save(str(output / "model"))
    return model


def _check(output: Path, settings: dict[str, Any], resume: bool) -> None:
    """Refuse a folder with another run."""
    if not (output / SETTINGS).exists():
        return
    if not resume:
        raise ValueError(f"{output} has an earlier run: go on with resume, or name another folder")
    before = read_json(output / SETTINGS)
    for name, value in settings.items():
        if before.get(name) != value:
            raise ValueError(f"{output} was begun with {name} = {before.get(name)!r}, not {value!r}")


def _described(rows: Sequence[Any]) -> str:
    """How many rows, and a hash of them; an image counts by its content, wherever it lies."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(fingerprint(vars(row) if isinstance(row, (Named, Asked)) else row))
    return f"{len(rows)} rows ({digest.hexdigest()[:8]})"


def _of_stage(log: Callable[[dict[str, Any]], None], name: str, record: dict[str, Any]) -> None:
    log({"stage": name, **record})


def pictured_texts(named: Iterable[Named], asked: Iterable[Asked]) -> list[str]:
    """What is said of images: the text side has to know it first."""
    texts = [text for row in named for name in row.names for text in (name, f"hình {name}")]
    texts += [text for row in asked for text in (row.question, row.answer, *row.others)]
    return [text for text in texts if text.strip()]


@dataclass(frozen=True)
class _Material:
    teacher: Teacher
    texts: Texts
    pairs: Pairs


def _drawn(
    sets: Sequence[Dataset],
    shares: Sequence[float] | None,
    others: Sequence[str],
    num_texts: int,
    num_paragraphs: int,
    num_pairs: int,
    seed: int,
) -> dict[str, list[str]]:
    """Texts, shortest first, and questions with their paragraphs."""
    parts = [split_by_anchor(rows, 0.03, anchor="title", seed=seed)["train"] for rows in sets]
    drawn = draw_texts(parts, (), num_texts, shares, seed) + draw_paragraphs(parts, shares, num_paragraphs, seed)
    check_documents(parts)
    pairs = draw_questions(parts, None, num_pairs, shares, seed)
    if len(pairs) < FEWEST_PAIRS:
        raise ValueError(f"the documents give {len(pairs)} questions with paragraphs, and {FEWEST_PAIRS} are needed")
    return {
        "texts": sorted(dict.fromkeys([*drawn, *others]), key=len),
        "questions": list(pairs["anchor"]),
        "paragraphs": list(pairs["positive"]),
    }


def _prepare(
    teacher: SentenceTransformer,
    documents: Sequence[Dataset],
    shares: Sequence[float] | None,
    others: Iterable[str],
    output: Path,
    settings: Mapping[str, Any],
    log: Callable[[dict[str, Any]], None],
    *,
    pictured: Sequence[str],
    base: str | Path | None,
    num_texts: int,
    num_paragraphs: int,
    num_pairs: int,
    sizes: dict[str, Any],
    seed: int,
) -> _Material:
    """The untrained model in ``start/``, and what the text side learns; read from `output` where it is there.

    The run is recorded once texts and model are made, so that after unusable ones the folder is still free.
    """
    file, start = output / "texts.pt", output / "start"
    kept = (
        torch.load(file, weights_only=True)
        if file.exists()
        else _drawn(documents, shares, [*others, *pictured], num_texts, num_paragraphs, num_pairs, seed)
    )
    texts: list[str] = kept["texts"]
    centred = Centred(teacher.bfloat16(), Random(seed).sample(texts, min(4096, len(texts))))
    model = None
    if not start.is_dir():
        torch.manual_seed(seed)
        if base is None:
            random = Random(seed)
            shown = [text for text in texts + kept["questions"] for text in (text, vary(text, random))]
            some = random.sample(shown, min(len(shown), 120_000))
            model = small_vipolyqwen(some, centred, output / "base", sizes=sizes)
        else:
            dimension = len(centred.centre)
            model = build_vipolyqwen(base, dimension, min_pixels=28 * 28, max_pixels=MAX_PIXELS).cpu().float()
    write_whole(output / SETTINGS, json.dumps(settings))
    if not file.exists():
        save_whole(kept, file)
        log({"texts": len(texts), "pairs": len(kept["questions"])})
    if model is not None:
        with unfinished(start) as new:
            model.save(str(new / "model"))
            (new / "model").rename(start)
        log({"weights": sum(parameter.numel() for parameter in model.parameters())})
    targets = {
        name: kept_targets(output / "targets" / f"{name}.pt", kept[name], centred, log)
        for name in ("questions", "paragraphs", "texts")
    }
    return _Material(
        centred,
        Texts(texts, targets["texts"]),
        Pairs(kept["questions"], kept["paragraphs"], targets["questions"], targets["paragraphs"]),
    )
