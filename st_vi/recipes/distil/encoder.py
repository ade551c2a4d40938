"""A small encoder from a large one: the rows of each stage, and its training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, concatenate_datasets
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments

from st_vi.data import MixedTaskCollator, nli_to_triplets, sample_nli, sample_retrieval, split_by_anchor
from st_vi.data.accepted import Rows, as_dataset, is_rows
from st_vi.data.documents import document_contradictions
from st_vi.data.negatives.sampling import ClusterBatchSampler
from st_vi.files.folders import alone_in
from st_vi.hub import load
from st_vi.identity import model_identity
from st_vi.losses import DLELoss
from st_vi.recipes.distil.draw import check_documents, draw_questions, draw_texts
from st_vi.recipes.distil.held_out import Distilled, vectors_of
from st_vi.recipes.distil.run import Run
from st_vi.recipes.distil.stages import STAGES, Part, Stage
from st_vi.recipes.distil.student import check_layers, small_student
from st_vi.recipes.training.manifest import ARGUMENTS, as_record, identity_of_rows
from st_vi.recipes.training.run import train
from st_vi.text import strip_diacritics
from st_vi.text.variants import vary
from st_vi.vocabulary.trim import trim_vocabulary, unwritable

_MAX_UNWRITABLE = 0.01  # share of the texts


def distill_encoder(
    teacher: str | Path,
    documents: Rows | Sequence[Rows],
    output: str | Path,
    *,
    nli: Rows | None = None,
    questions: Rows | None = None,
    texts: Iterable[str] = (),
    layers: Sequence[int] = (2, 5, 8, 11),
    max_pieces: int = 14_300,
    prompt: str = "query: ",
    num_texts: int = 250_000,
    num_questions: int = 13_000,
    num_contradictions: int = 2_500,
    shares: Sequence[float] | None = None,
    held_out: float = 0.03,
    stages: Sequence[Stage] = STAGES,
    seed: int = 0,
    resume: bool = False,
    progress: Callable[[str], None] | None = None,
    **arguments: Any,
) -> SentenceTransformer:
    """Distil a small encoder from a large one in stages, on unlabelled documents and NLI rows.

    1. The vocabulary of the teacher is trimmed to the documents (`trim_vocabulary`). 2. The student keeps some layers
    of the teacher, with mean pooling and without a prompt. Its position embeddings start after the prompt, where the
    text begins in the teacher. 3. There are four stages (`STAGES`): sentences; queries and paragraphs; NLI; and all
    three together, with texts, questions and contradictions that are drawn anew. Each uses vectors of the teacher,
    computed once by `encode_corpus`. A third of the texts are varied as people type (`vary`), mostly without
    diacritics; the teacher encodes the clean text. 4. After each stage, the student is evaluated on held-out documents
    and NLI rows, see `Distilled`.

    `output` has the final student; ``stages/…``, the student after each stage; ``teacher/…``, the vectors; and
    ``log.jsonl``, with one line per logged step and per stage with its results. Use `resume` to continue an interrupted
    run.

    Source: see the terms for theirs. Unlabelled questions as in Lewis et al. 2019 (arXiv 1906.04980) without the
    translation; the rest is original.

    Args:
        teacher: A model with a BERT-like encoder: a Hub id or a folder.
        documents: Paragraphs with columns title, text and optionally section or subject; several sets are sampled by
            `shares`.
        output: Output folder.
        nli: Rows with premise, hypothesis, label; None for the training part of the sample set. A tenth of the premises
            is held out.
        questions: Rows of the task "retrieval" in addition to those generated from `documents`: anchor, positive,
            document, such as `sample_questions`.
        texts: Further texts, such as everyday language; they make up a tenth of the texts of a stage, repeated if
            needed.
        layers: Teacher layers to keep, from 0.
        max_pieces: Vocabulary size of the student.
        prompt: Prompt of the teacher.
        num_texts: Number of texts of a stage.
        num_questions: Number of questions of a stage.
        num_contradictions: Number of triplets generated from `documents` (`document_contradictions`) for a stage, in
            addition to `nli` twice.
        shares: Share of each set of documents; None for equal shares.
        held_out: Share of the titles held out for evaluation.
        stages: See `STAGES`.
        seed: Seed for all sampling.
        resume: Continue an earlier run, which must have the same rows and settings.
        progress: Function that is called with a message when a step begins.
        **arguments: Stock training arguments that override those of the stages.

    Returns:
        The student, a stock model: `Transformer`, `Pooling`, `Normalize`.

    Raises:
        ValueError: Before anything is written: documents are not Vietnamese, cannot be written with the student's
            vocabulary, or give no question; no premise of `nli` has both an entailment and a contradiction; the
            tokenizer cannot be trimmed; the teacher does not have these layers; `output` has an earlier run and
            `resume` is not set, or another run and it is, or another process is at work in it. Later: `output` has
            teacher vectors of other rows.

    Example:
        >>> from st_vi.data import read_rows
        >>> from st_vi.recipes import distill_encoder
        >>> wiki = read_rows("wiki.jsonl")  # doctest: +SKIP
        >>> student = distill_encoder("intfloat/multilingual-e5-small", wiki, "outputs/small")  # doctest: +SKIP
    """
    sets = [as_dataset(rows) for rows in ([documents] if _are_one(documents) else documents)]  # type: ignore[arg-type]
    nli = sample_nli("train") if nli is None else as_dataset(nli)
    questions = None if questions is None else as_dataset(questions)
    texts = list(texts)
    large = load(str(teacher), device="cpu")
    settings = {
        "documents": [identity_of_rows(rows) for rows in sets],
        "nli": identity_of_rows(nli),
        "questions": None if questions is None else identity_of_rows(questions),
        "texts": identity_of_rows(Dataset.from_dict({"text": texts})),
        "teacher": {"identity": model_identity(large), "shown": str(teacher)},
        "layers": layers,
        "max_pieces": max_pieces,
        "prompt": prompt,
        "num_texts": num_texts,
        "num_questions": num_questions,
        "num_contradictions": num_contradictions,
        "shares": shares,
        "held_out": held_out,
        "stages": list(map(repr, stages)),
        "seed": seed,
        **{name: value for name, value in arguments.items() if name in ARGUMENTS},
    }
    run = Run(Path(output), resume, seed, progress or (lambda _: None), arguments, as_record(settings))
    parts = [split_by_anchor(rows, held_out, anchor="title", seed=seed) for rows in sets]
    drawn = draw_texts([part["train"] for part in parts], texts, num_texts, shares, seed)
    check_documents([part["train"] for part in parts])
    check_layers(large, layers)

    with alone_in(output):
        run.check()  # again: another run may have been faster
        # Nothing is written before all rows are made, so that after unusable ones the folder is still free.
        run.progress("cutting the vocabulary")
        corpus = [text for part in parts for text in part["train"]["text"]]
        random = Random(seed)
        report = trim_vocabulary(
            large,
            [*corpus, *texts, *(vary(text, random) for text in drawn)],
            max_pieces=max_pieces,
            keep=[prompt],
            vietnamese=False,  # checked
        )
        _check_writable(large, drawn)

        nli_parts = split_by_anchor(nli, 0.1, anchor="premise", seed=seed)
        measure = Distilled(
            [part["test"] for part in parts],
            nli_parts["test"],
            seed=seed,
            teacher=partial(vectors_of, large, prompt=prompt),
        )
        train_sets = [part["train"] for part in parts]

        def rows_of(task: str, again: int) -> Dataset:
            """The rows of a task, drawn anew each time that a stage uses it again."""
            if task == "retrieval":
                return draw_questions(train_sets, questions, num_questions, shares, seed + again)
            if task == "nli":
                return _triplet_rows(nli_parts["train"], train_sets, num_contradictions, seed + again)
            return Dataset.from_dict(
                {"anchor": draw_texts(train_sets, texts, num_texts, shares, seed + again) if again else drawn}
            )

        first = {task: rows_of(task, 0) for task in {part.task.name for stage in stages for part in stage.parts}}
        run.begin()
        run.log({"stage": "trim", **report.as_dict()})
        student = small_student(large, layers, prompt)
        run.log({"stage": "start", **measure(student)})
        used: list[str] = []
        for stage in stages:
            if (done := run.done(stage.name)) is not None:
                run.progress(f"{stage.name}: done before")
                student = done
            else:
                run.progress(f"{stage.name}: rows and the teacher's vectors of them")
                made = {
                    task: rows_of(task, used.count(task)) if task in used else first[task]
                    for task in (part.task.name for part in stage.parts)
                }
                _train_stage(student, stage, run.taught(large, made, stage.name, prompt), run)
                student = load(str(run.folder(stage.name)), device="cpu")  # the trainer leaves autocast on
                run.log({"stage": stage.name, "finished": True, **measure(student)})
            used += [part.task.name for part in stage.parts]
        student.save_pretrained(str(output))
    return student


def sample_questions() -> Dataset:
    """The training part of the sample questions and passages, as rows for `distill_encoder`.

    Example:
        >>> from st_vi.recipes.distil.encoder import sample_questions
        >>> sample_questions().column_names
        ['anchor', 'positive', 'document']
    """
    rows = sample_retrieval("train")
    columns = {"anchor": rows["question"], "positive": rows["passage"], "document": rows["topic"]}
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def _are_one(documents: Any) -> bool:
    return is_rows(documents) or isinstance(documents, (str, Path))  # these are refused as a whole


def _triplet_rows(nli: Dataset, sets: Sequence[Dataset], count: int, seed: int) -> Dataset:
    """Triplets of annotated NLI rows, twice, and triplets generated from documents."""
    columns = ["anchor", "positive", "negative"]
    triplets = nli_to_triplets(nli, seed=seed)
    if "triplets" not in triplets:
        raise ValueError("no premise of the NLI rows has both an entailment and a contradiction")
    annotated = triplets["triplets"].select_columns(columns)
    made = [document_contradictions(rows, count // len(sets), seed) for rows in sets]
    return concatenate_datasets([annotated, annotated, *(rows for rows in made if len(rows))])


def _check_writable(model: SentenceTransformer, texts: Sequence[str]) -> None:
    first = list(texts[:20_000])
    unknown = unwritable(model.tokenizer, first)
    if len(unknown) > _MAX_UNWRITABLE * len(first):
        shown = "; ".join(repr(first[number][:40]) for number in unknown[:3])
        raise ValueError(
            f"{len(unknown)} of {len(first)} texts have letters that the student's vocabulary cannot write: {shown}"
        )


def _train_stage(student: SentenceTransformer, stage: Stage, taught: Mapping[str, Dataset], run: Run) -> None:
    rows = {part.task.name: _prepared(taught[part.task.name], part, stage, run.seed) for part in stage.parts}
    tasks = [part.task for part in stage.parts]
    before = [parameter.detach().clone() for parameter in student.parameters()]
    length: Any = student.max_seq_length
    student.max_seq_length = min(length or stage.max_length, stage.max_length)
    trainer = train(
        student,
        DatasetDict(rows),  # each batch comes from one of them
        run.folder(stage.name),
        DLELoss(student, tasks),
        partial(_arguments, stage),
        {"seed": run.seed, **run.arguments},
        data_collator=MixedTaskCollator(preprocess_fn=student.preprocess, tasks=tasks, prefix_side="none"),
        resume=run.resume,
    )
    student.max_seq_length = length
    with torch.no_grad():
        for parameter, was in zip(student.parameters(), before, strict=True):
            parameter.lerp_(was, stage.keep)
    student.save_pretrained(str(run.folder(stage.name)))
    for record in trainer.state.log_history:
        if "loss" in record:
            run.log({"stage": stage.name, **record})


def _prepared(rows: Dataset, part: Part, stage: Stage, seed: int) -> Dataset:
    """The rows of a part, repeated and varied, with the name of its task."""
    rows = concatenate_datasets([rows] * part.repeats)
    rows = rows.add_column("task", [part.task.name] * len(rows))
    return rows.map(
        partial(_varied, part=part, seed=f"{seed} {stage.name}"), with_indices=True, load_from_cache_file=False
    )


def _by_document(rows: Dataset, *args: Any, **settings: Any) -> ClusterBatchSampler:
    """Batches with paragraphs of the same documents, as hard negatives, where there are any."""
    clusters = np.zeros(len(rows), dtype=int)
    if "document" in rows.column_names:
        clusters = np.unique(rows.with_format(None)["document"][:], return_inverse=True)[1]
    return ClusterBatchSampler(rows, *args, clusters=clusters, **settings)


def _varied(row: dict[str, Any], number: int, *, part: Part, seed: str) -> dict[str, str]:
    """The texts of a row as people may type them; deterministic for each row."""
    random = Random(f"{seed} {part.task.name} {number}")
    made: dict[str, str] = {}
    for column in ("anchor", "positive", "negative"):
        if column not in row:
            continue
        if column == "anchor" and random.random() < part.bare:
            bare = strip_diacritics(row[column])
            made[column] = bare.lower() if random.random() < 0.4 else bare
        else:
            made[column] = vary(row[column], random) if random.random() < part.varied else row[column]
    return made


def _arguments(stage: Stage, output_dir: str | Path, **arguments: Any) -> SentenceTransformerTrainingArguments:
    defaults: dict[str, Any] = {
        "num_train_epochs": stage.epochs,
        "per_device_train_batch_size": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.03},
        "warmup_steps": 0.05,
        "weight_decay": 0.01,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 1.0,
        "save_strategy": "steps",
        "save_steps": 200,
        "save_total_limit": 1,
        "logging_steps": 25,
        "report_to": "none",
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "batch_sampler": _by_document,
    }
    return SentenceTransformerTrainingArguments(output_dir=str(output_dir), **defaults | arguments)
