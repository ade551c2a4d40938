"""Distillation of a small encoder from a large one."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from st_vi.data import MixedTaskCollator, nli_to_triplets, sample_nli, sample_retrieval, split_by_anchor
from st_vi.data.accepted import Rows, as_dataset, is_rows
from st_vi.data.documents import document_contradictions, document_questions, document_texts
from st_vi.data.negatives.sampling import ClusterBatchSampler
from st_vi.encoding import encode_corpus
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.hub import load
from st_vi.losses import DLELoss
from st_vi.recipes.training.manifest import ARGUMENTS, as_record, begin, check_same, identity_of_rows
from st_vi.recipes.training.run import train
from st_vi.tasks import Task
from st_vi.terms import InfoNCE, TeacherCosine, TeacherSimilarities
from st_vi.text import strip_diacritics
from st_vi.text.variants import vary
from st_vi.vocabulary.trim import check_vietnamese, trim_vocabulary, unwritable

LOG = "log.jsonl"
_MAX_UNWRITABLE = 0.01  # share of the texts


@dataclass(frozen=True)
class Stage:
    """Settings of a training stage.

    Attributes:
        task: Name and loss terms.
        learning_rate: Peak learning rate, after a tenth of the steps; then cosine decay.
        batch_size: Rows per batch.
        epochs: Epochs over the rows.
        bare: Share of the queries without diacritics.
        varied: Share of all texts changed by one of the methods of `vary`.
        max_length: Maximum tokens per text.
        keep: Weight of the student before the stage when it is averaged with the student after it, which reduces the
            noise that a stage adds.
    """

    task: Task
    learning_rate: float
    batch_size: int = 64
    epochs: float = 1
    bare: float = 0.0
    varied: float = 0.33
    max_length: int = 160
    keep: float = 0.0


STAGES: tuple[Stage, ...] = (
    Stage(
        Task("sentences", "", (TeacherCosine(weight=10.0), TeacherSimilarities(weight=30.0))),
        learning_rate=4e-4,
        batch_size=128,
    ),
    Stage(
        Task(
            "retrieval",
            "",
            (
                InfoNCE(temperature=0.02, weight=0.125),
                InfoNCE(temperature=0.02, symmetric=True, weight=0.125),
                TeacherCosine(weight=10.0),
                TeacherSimilarities(weight=60.0),
            ),
        ),
        learning_rate=1.5e-4,
        bare=0.45,
        varied=0.1,
        keep=0.3,
    ),
    Stage(
        Task(
            "nli",
            "",
            (
                InfoNCE(temperature=0.02, hard_negative_weight=1.0, weight=0.3),
                TeacherCosine(weight=10.0),
                TeacherSimilarities(weight=60.0),
            ),
        ),
        learning_rate=5e-5,
        varied=0.2,
        max_length=96,
        keep=0.2,
    ),
)
"""Sentences; queries and paragraphs; ViCLSR. All include the teacher as a loss term."""


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
    text begins in the teacher. 3. There are three stages (`STAGES`): sentences; queries and paragraphs; NLI. Each uses
    vectors of the teacher, computed once by `encode_corpus`. A third of the texts are varied as people type (`vary`),
    mostly without diacritics; the teacher encodes the clean text. 4. After each stage, the student is evaluated on
    held-out documents and NLI rows, see `Distilled`.

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
        questions: Rows for the second stage in addition to those generated from `documents`: anchor, positive,
            document, such as `sample_questions`.
        texts: Further texts for the first stage, such as everyday language; they make up a tenth of it, repeated if
            needed.
        layers: Teacher layers to keep, from 0.
        max_pieces: Vocabulary size of the student.
        prompt: Prompt of the teacher.
        num_texts: Number of texts of the first stage.
        num_questions: Number of questions of the second stage.
        num_contradictions: Number of triplets generated from `documents` (`document_contradictions`) for the third
            stage, in addition to `nli` twice.
        shares: Share of each set of documents; None for equal shares.
        held_out: Share of the titles held out for evaluation.
        stages: See `STAGES`. Stages with the task "retrieval" or "nli" use those rows, all others the texts.
        seed: Seed for all sampling.
        resume: Continue an earlier run, which must have the same rows and settings.
        progress: Function that is called with a message when a step begins.
        **arguments: Stock training arguments that override those of the stages.

    Returns:
        The student, a stock model: `Transformer`, `Pooling`, `Normalize`.

    Raises:
        ValueError: Before any training: documents are not Vietnamese, or cannot be written with the student's
            vocabulary; the tokenizer cannot be trimmed; the teacher does not have these layers; `output` has teacher
            vectors of other rows, an earlier run and `resume` is not set, or another run and it is.

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
    settings = {
        "documents": [identity_of_rows(rows) for rows in sets],
        "nli": identity_of_rows(nli),
        "questions": None if questions is None else identity_of_rows(questions),
        "texts": identity_of_rows(Dataset.from_dict({"text": texts})),
        "teacher": Path(teacher).name,
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
    run = _Run(Path(output), resume, seed, progress or (lambda _: None), arguments, as_record(settings))
    parts = [split_by_anchor(rows, held_out, anchor="title", seed=seed) for rows in sets]
    drawn = _draw_texts([part["train"] for part in parts], texts, num_texts, shares, seed)
    check_vietnamese(drawn)
    large = load(str(teacher), device="cpu")
    _check_layers(large, layers)

    run.begin()
    run.progress("cutting the vocabulary")
    corpus = [text for part in parts for text in part["train"]["text"]]
    random = Random(seed)
    report = trim_vocabulary(
        large, [*corpus, *texts, *(vary(text, random) for text in drawn)], max_pieces=max_pieces, keep=[prompt]
    )
    run.log({"stage": "trim", **report.as_dict()})
    _check_writable(large, drawn)

    nli_parts = split_by_anchor(nli, 0.1, anchor="premise", seed=seed)
    measure = Distilled(
        [part["test"] for part in parts], nli_parts["test"], seed=seed, teacher=partial(_vectors, large, prompt=prompt)
    )
    rows: dict[str, Callable[[], Dataset]] = {
        "retrieval": lambda: _question_rows([part["train"] for part in parts], questions, num_questions, shares, seed),
        "nli": lambda: _triplet_rows(nli_parts["train"], [part["train"] for part in parts], num_contradictions, seed),
    }
    student = small_student(large, layers, prompt)
    run.log({"stage": "start", **measure(student)})
    for stage in stages:
        name = stage.task.name
        if (done := run.done(name)) is not None:
            run.progress(f"{name}: done before")
            student = done
            continue
        run.progress(f"{name}: rows and the teacher's vectors of them")
        made = rows.get(name, lambda: Dataset.from_dict({"anchor": drawn}))()
        _train_stage(student, stage, run.taught(large, made, name, prompt), run)
        student = load(str(run.folder(name)), device="cpu")  # reloaded, because the trainer leaves autocast on
        run.log({"stage": name, "finished": True, **measure(student)})
    student.save_pretrained(str(output))
    return student


def sample_questions() -> Dataset:
    """The training part of the sample questions and passages, as rows for `distill_encoder`.

    Example:
        >>> from st_vi.recipes.distil import sample_questions
        >>> sample_questions().column_names
        ['anchor', 'positive', 'document']
    """
    rows = sample_retrieval("train")
    columns = {"anchor": rows["question"], "positive": rows["passage"], "document": rows["topic"]}
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


def small_student(teacher: SentenceTransformer, layers: Sequence[int], prompt: str = "") -> SentenceTransformer:
    """Some layers of a BERT-like encoder with its embeddings, mean pooling and normalisation, in fp32.

    Args:
        teacher: The teacher; it is not changed.
        layers: Layers to keep, from 0, in this order.
        prompt: Prompt of the teacher, which the student does not use; its position embeddings start after it.

    Raises:
        ValueError: The teacher does not have these layers.

    Example:
        >>> from sentence_transformers import SentenceTransformer
        >>> from st_vi.recipes.distil import small_student
        >>> teacher = SentenceTransformer("intfloat/multilingual-e5-small")  # doctest: +SKIP
        >>> small_student(teacher, (2, 5, 8, 11), "query: ")  # doctest: +SKIP
    """
    _check_layers(teacher, layers)
    transformer: Any = copy.deepcopy(teacher[0]).float()
    backbone = transformer.model
    parent, name = _layers_of(backbone)
    setattr(parent, name, nn.ModuleList([getattr(parent, name)[layer] for layer in layers]))
    backbone.config.num_hidden_layers = len(layers)
    for setting in vars(backbone.config):
        if "dropout" in setting and isinstance(getattr(backbone.config, setting), float):
            setattr(backbone.config, setting, 0.0)
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    _skip_positions(backbone, len(transformer.tokenizer.encode(prompt, add_special_tokens=False)) if prompt else 0)
    width = transformer.get_embedding_dimension()
    return SentenceTransformer(modules=[transformer, Pooling(width, "mean"), Normalize()], device="cpu")


def _skip_positions(backbone: Any, count: int) -> None:
    """Keep the position of the first token, and skip those of the prompt."""
    table = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    if not count or not isinstance(table, nn.Embedding):
        return
    padding = getattr(backbone.embeddings, "padding_idx", None)
    first = padding + 2 if table.padding_idx is not None and padding is not None else 1  # XLM-R counts from padding
    with torch.no_grad():
        moved = table.weight[first + count :].clone()
        table.weight[first : first + len(moved)] = moved


def _layers_of(backbone: nn.Module) -> tuple[nn.Module, str]:
    count = backbone.config.num_hidden_layers  # type: ignore[union-attr]
    for parent in backbone.modules():
        for name, child in parent.named_children():
            if isinstance(child, nn.ModuleList) and len(child) == count:
                return parent, name
    raise ValueError(f"a {type(backbone).__name__} has no list of {count} layers")


def _check_layers(teacher: SentenceTransformer, layers: Sequence[int]) -> None:
    if not isinstance(teacher[0], Transformer):
        raise ValueError(f"expected a teacher whose first module is a Transformer, got {type(teacher[0]).__name__}")
    parent, name = _layers_of(teacher[0].model)
    count = len(getattr(parent, name))
    if not layers or any(not 0 <= layer < count for layer in layers):
        raise ValueError(f"the teacher has layers 0 to {count - 1}, got {list(layers)}")


def _are_one(documents: Any) -> bool:
    return is_rows(documents) or isinstance(documents, (str, Path))  # these are refused as a whole


def _draw_texts(
    sets: Sequence[Dataset], texts: Sequence[str], count: int, shares: Sequence[float] | None, seed: int
) -> list[str]:
    """Sample texts from the sets by their shares, and a tenth from other texts, repeated if needed."""
    parts = list(shares or [1.0] * len(sets))
    if len(parts) != len(sets):
        raise ValueError(f"there are {len(sets)} sets of documents and {len(parts)} shares")
    if not all(0 <= share < inf for share in parts) or not sum(parts):
        raise ValueError(f"shares must be numbers of 0 or more, and not all 0, got {parts}")
    other = count // 10 if texts else 0
    drawn = []
    for rows, share in zip(sets, parts, strict=True):
        drawn += document_texts(rows, round((count - other) * share / sum(parts)), seed)
    drawn += [texts[number % len(texts)] for number in range(other)]
    Random(seed).shuffle(drawn)
    return drawn


def _question_rows(
    sets: Sequence[Dataset], own: Dataset | None, count: int, shares: Sequence[float] | None, seed: int
) -> Dataset:
    parts = list(shares or [1.0] * len(sets))
    made = [
        document_questions(rows, round(count * share / sum(parts)), seed)
        for rows, share in zip(sets, parts, strict=True)
    ]
    columns = ["anchor", "positive", "document"]
    if own is not None:
        made.append(own)
    return concatenate_datasets([rows.select_columns(columns) for rows in made if len(rows)])


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


@dataclass
class _Run:
    """The folder of a run, with its finished parts."""

    output: Path
    resume: bool
    seed: int
    progress: Callable[[str], None]
    arguments: Mapping[str, Any]
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"{self.output} is a file: give a folder")
        if (self.output / LOG).exists():
            if not self.resume:
                raise ValueError(f"{self.output} has an earlier run: use resume to continue it, or another folder")
            check_same(self.output, self.settings, left=[self.output / LOG])
        self.start = time.time()

    def begin(self) -> None:
        """Record the run."""
        begin(self.output, self.settings, resume=self.resume, overwrite=False)

    def log(self, record: Mapping[str, Any]) -> None:
        """Log one line, with the seconds since the start of this call."""
        line = json.dumps({**record, "seconds": round(time.time() - self.start, 1)}, ensure_ascii=False)
        with (self.output / LOG).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def done(self, stage: str) -> SentenceTransformer | None:
        """The student after a stage that is already finished."""
        file = self.output / LOG
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        if any(record["stage"] == stage and record.get("finished") for record in records):
            return load(str(self.folder(stage)), device="cpu")
        return None

    def folder(self, stage: str) -> Path:
        """The folder of a stage, for its checkpoints and its student."""
        return self.output / "stages" / stage

    def taught(self, teacher: SentenceTransformer, rows: Dataset, stage: str, prompt: str) -> Dataset:
        """The rows with vectors of the teacher, computed once and stored on disk.

        Negatives have none: most teachers place a text near its contradiction, and the stage should separate them.
        """
        columns = [name for name in ("anchor", "positive") if name in rows.column_names]
        parts = [rows]
        for column in columns:
            folder = self.output / "teacher" / f"{stage}-{column}"
            encode_corpus(teacher, rows, folder, column, precision="float16", prompt=prompt)
            vectors = Dataset.from_parquet(f"{folder}/*.parquet", cache_dir=str(self.output / "teacher"))
            parts.append(vectors.select_columns("embedding").rename_column("embedding", f"{column}_teacher"))
        return concatenate_datasets(parts, axis=1)


def _train_stage(student: SentenceTransformer, stage: Stage, rows: Dataset, run: _Run) -> None:
    name = stage.task.name
    rows = rows.add_column("task", [name] * len(rows))
    rows = rows.map(partial(_varied, stage=stage, seed=run.seed), with_indices=True, load_from_cache_file=False)
    documents = np.unique(rows["document"], return_inverse=True)[1] if "document" in rows.column_names else None
    before = [parameter.detach().clone() for parameter in student.parameters()]
    length: Any = student.max_seq_length
    student.max_seq_length = min(length or stage.max_length, stage.max_length)
    trainer = train(
        student,
        rows,
        run.folder(name),
        DLELoss(student, [stage.task]),
        partial(_arguments, stage, documents),
        {"seed": run.seed, **run.arguments},
        data_collator=MixedTaskCollator(preprocess_fn=student.preprocess, tasks=[stage.task], prefix_side="none"),
        resume=run.resume,
    )
    student.max_seq_length = length
    with torch.no_grad():
        for parameter, was in zip(student.parameters(), before, strict=True):
            parameter.lerp_(was, stage.keep)
    student.save_pretrained(str(run.folder(name)))
    for record in trainer.state.log_history:
        if "loss" in record:
            run.log({"stage": name, **record})


def _varied(row: dict[str, Any], number: int, *, stage: Stage, seed: int) -> dict[str, str]:
    """The texts of a row as people may type them; deterministic for each row."""
    random = Random(f"{seed} {stage.task.name} {number}")
    made: dict[str, str] = {}
    for column in ("anchor", "positive", "negative"):
        if column not in row:
            continue
        if column == "anchor" and random.random() < stage.bare:
            bare = strip_diacritics(row[column])
            made[column] = bare.lower() if random.random() < 0.4 else bare
        else:
            made[column] = vary(row[column], random) if random.random() < stage.varied else row[column]
    return made


def _arguments(
    stage: Stage, documents: Any, output_dir: str | Path, **arguments: Any
) -> SentenceTransformerTrainingArguments:
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
    }
    if documents is not None:
        defaults["batch_sampler"] = partial(ClusterBatchSampler, clusters=documents)
    return SentenceTransformerTrainingArguments(output_dir=str(output_dir), **defaults | arguments)


def _vectors(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> torch.Tensor:
    found: Any = model.encode(list(texts), prompt=prompt or None, convert_to_tensor=True, show_progress_bar=False)
    return torch.nn.functional.normalize(found.float().cpu(), dim=1)


class Distilled:
    """Evaluates a student against its teacher and on retrieval and NLI, on held-out rows.

    Args:
        documents: Held-out paragraphs, as for `document_texts`.
        nli: Held-out rows with premise, hypothesis, label.
        count: Maximum number of texts and of queries.
        seed: Seed for sampling.
        teacher: Function that returns vectors (N, D) of clean texts; None skips this comparison.

    Returns:
        When called with a model: ``teacher_cosine`` and ``teacher_cosine_bare`` (student without diacritics), the mean
            cosine with the teacher's vectors; ``recall`` and ``recall_bare``, the share of queries whose paragraph
            ranks first; ``triplet_accuracy`` and ``nli_spearman``.

    Example:
        >>> from datasets import Dataset
        >>> from st_vi.recipes.distil import Distilled
        >>> measure = Distilled([Dataset.from_dict({"title": ["Chợ"], "text": ["Chợ họp từ sáng."]})])
        >>> measure.queries
        []
    """

    def __init__(
        self,
        documents: Sequence[Dataset],
        nli: Dataset | None = None,
        count: int = 400,
        seed: int = 0,
        teacher: Callable[[Sequence[str]], torch.Tensor] | None = None,
    ) -> None:
        each = max(1, count // len(documents))
        self.texts = [text for rows in documents for text in document_texts(rows, each, seed)]
        found = [document_questions(rows, each, seed, per_document=2) for rows in documents]
        self.queries = [query for rows in found if len(rows) for query in rows["anchor"]]
        paragraphs = [paragraph for rows in found if len(rows) for paragraph in rows["positive"]]
        self.paragraphs = list(dict.fromkeys(paragraphs))
        self.right = torch.tensor([self.paragraphs.index(paragraph) for paragraph in paragraphs])
        self.targets = teacher(self.texts) if teacher is not None and self.texts else None
        self.nli = nli and NLISimilarityEvaluator(nli["premise"], nli["hypothesis"], nli["label"])

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        """Evaluate a model."""
        figures: dict[str, float] = {}
        if self.targets is not None:
            for name, texts in (("teacher_cosine", self.texts), ("teacher_cosine_bare", _bare(self.texts))):
                if (vectors := _vectors(model, texts)).shape == self.targets.shape:
                    figures[name] = float((vectors * self.targets).sum(dim=1).mean())
        if self.queries:
            paragraphs = _vectors(model, self.paragraphs)
            for name, texts in (("recall", self.queries), ("recall_bare", _bare(self.queries))):
                first = (_vectors(model, texts) @ paragraphs.T).argmax(dim=1)
                figures[name] = float((first == self.right).float().mean())
        if self.nli:
            figures |= {name.removeprefix("_"): float(value) for name, value in self.nli(model).items()}
        return figures


def _bare(texts: Sequence[str]) -> list[str]:
    return [strip_diacritics(text) for text in texts]
