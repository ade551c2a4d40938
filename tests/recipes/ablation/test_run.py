"""The ablation: runs that differ in one thing, and figures against sums done by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict
from PIL import Image
from typer.testing import CliRunner

from st_vi import build_vipolyqwen
from st_vi.__main__ import app
from st_vi.recipes import vipolyqwen_evaluator
from st_vi.recipes.ablation import BASELINE, VARIANTS, ablate, read_results
from st_vi.recipes.ablation import run as ablation
from st_vi.recipes.ablation.report import plot, recall, summarise, table
from st_vi.recipes.ablation.study import generated_study, study_of_rows
from st_vi.terms import InfoNCE, PairwiseRank
from tests.helpers.small_encoder import change_weights
from tests.helpers.tiny_qwen2_vl import save_tiny_qwen2_vl


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return generated_study(tmp_path_factory.mktemp("ablation"), steps=2, rows=8, test_rows=4)


def test_every_variant_differs_from_the_baseline_in_one_thing():
    for name, variant in VARIANTS.items():
        changed = [field for field, value in vars(variant).items() if value != vars(VARIANTS[BASELINE])[field]]
        assert len(changed) == {BASELINE: 0, "no prefix": 2}.get(name, 1), name


def test_no_ranking_leaves_out_ranking_alone():
    terms, all_terms = (VARIANTS[name].tasks[0].terms for name in ("no ranking", BASELINE))
    assert [term for term in all_terms if term not in terms] == [PairwiseRank(margin=0.05, weight=1.0)]
    assert {type(term) for task in VARIANTS["InfoNCE only"].tasks for term in task.terms} == {InfoNCE}


def test_a_study_leaves_out_what_is_its_baseline_already(study):
    assert "one learning rate" not in study.variants() and "vision tower at a tenth of the rate" in study.variants()
    pretrained = study_of_rows(study.train_rows, study.test_rows, "unused", 1, base="Qwen/Qwen2-VL-2B-Instruct")
    assert "one learning rate" in pretrained.variants()
    assert not {"vision tower at a tenth of the rate", "no InfoNCE warm-up"} & set(pretrained.variants())
    assert pretrained._rates(VARIANTS[BASELINE]) == {r"visual\.": pytest.approx(2e-6)}


def test_runs_are_kept_and_not_run_again(study, tmp_path):
    results = tmp_path / "results.jsonl"
    first = list(ablate(study, results, seeds=[0], variants=["mean pooling"]))
    assert [result["variant"] for result in first] == [BASELINE, "mean pooling"]
    assert read_results(results) == first
    written = results.read_text()
    assert list(ablate(study, results, seeds=[0], variants=["mean pooling"])) == first
    assert results.read_text() == written
    with pytest.raises(ValueError, match="unknown variants"):
        next(ablate(study, results, variants=["magic"]))


def test_the_same_seed_gives_the_same_run(study, tmp_path):
    one, two = (next(ablate(study, tmp_path / name / "results.jsonl", seeds=[3])) for name in ("one", "two"))
    assert one == two


@pytest.fixture
def untrained(monkeypatch):
    """Models stay as they are: what is looked at is what stands before and after."""
    calls = []
    monkeypatch.setattr(ablation, "train_vipolyqwen", lambda *_, **arguments: calls.append(arguments))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("what", ["steps", "rows", "test rows", "nli", "base", "pictures"])
def test_results_of_another_study_are_refused_by_name(study, untrained, tmp_path, what):
    results = tmp_path / "results.jsonl"
    first = list(ablate(study, results, seeds=[0], variants=["mean pooling"]))
    written = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    words, rows = study.train_rows["text_pairs"], study.test_rows["questions"]
    other, named = {
        "steps": (replace(study, arguments=study.arguments | {"max_steps": 3}), "max_steps: 2 there, 3 here"),
        "rows": (changed(study, "train_rows", "text_pairs", words.select(range(7))), "training rows of text_pairs: 8"),
        "test rows": (changed(study, "test_rows", "questions", rows.select(range(3))), "test rows of questions: 4"),
        "nli": (
            changed(study, "train_rows", "text_pairs", words.map(lambda row: {"anchor": row["anchor"] + " "})),
            "training rows of text_pairs",
        ),
        "base": (replace(study, base_name="Qwen/Qwen2-VL-2B-Instruct"), "base: small.*there, Qwen"),
        "pictures": (
            changed(study, "test_rows", "questions", rows.select([1, 0, 2, 3])),
            "test rows of questions: 4",
        ),
    }[what]
    with pytest.raises(ValueError, match=f"results of another study .*{named}"):
        next(ablate(other, results, seeds=[0]))
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == written
    assert list(ablate(study, results, seeds=[0], variants=["mean pooling"])) == first


def changed(study, side, kind, rows):
    return replace(study, **{side: DatasetDict(getattr(study, side) | {kind: rows})})


@pytest.mark.parametrize("trained", [False, True])
def test_a_base_with_other_weights_is_another(study, untrained, tmp_path, trained):
    base = save_tiny_qwen2_vl(tmp_path / "base")
    if trained:
        build_vipolyqwen(base, embedding_dimension=16).save_pretrained(str(tmp_path / "model"))
        base = tmp_path / "model"
    output = tmp_path / "out"

    def given():
        return study_of_rows(study.train_rows, study.test_rows, output, 2, base)

    def weights(study):
        return (Path(study.base_of(0)) / "model.safetensors").read_bytes()

    first = given()
    (before,) = ablate(first, output / "results.jsonl", seeds=[0], variants=[])
    assert list(ablate(given(), output / "results.jsonl", seeds=[0], variants=[])) == [before]
    begun_with = weights(first)
    change_weights(base)
    second = given()
    with pytest.raises(ValueError, match=r"results of another study .*base: (base|model) \(.*\) there"):
        next(ablate(second, output / "results.jsonl"))
    assert weights(second) != begun_with
    assert not trained or weights(first) == begun_with  # which may be running


def test_results_of_nobody_knows_what_are_refused(study, untrained, tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(RESULTS[0]) + "\n")
    with pytest.raises(ValueError, match=r"no study\.json says of which study"):
        next(ablate(study, tmp_path / "results.jsonl"))
    (tmp_path / "study.json").write_text('{"base": ')
    with pytest.raises(ValueError, match=r"study\.json is damaged or cut short"):
        next(ablate(study, tmp_path / "results.jsonl"))


def test_a_file_of_one_line_that_is_nobodys_stays(study, untrained, tmp_path):
    (tmp_path / "results.jsonl").write_text('{"mine": 1}')  # no end of the line, as after a kill
    with pytest.raises(ValueError, match=r"no study\.json says of which study"):
        next(ablate(study, tmp_path / "results.jsonl"))
    assert (tmp_path / "results.jsonl").read_text() == '{"mine": 1}'


def test_two_studies_at_the_same_time(study, untrained, tmp_path):
    first = ablate(study, tmp_path / "results.jsonl", seeds=[0])
    next(first)
    with pytest.raises(ValueError, match="another run is at work in"):
        next(ablate(study, tmp_path / "results.jsonl", seeds=[1]))
    first.close()


@pytest.mark.slow
def test_a_line_that_a_kill_left_unfinished_is_run_again(study, untrained, tmp_path):
    results = tmp_path / "results.jsonl"
    whole = list(ablate(study, results, seeds=[0], variants=["mean pooling"]))
    text = results.read_text()
    results.write_text(text[:-20])
    assert [result["variant"] for result in read_results(results)] == [BASELINE]
    assert list(ablate(study, results, seeds=[0], variants=["mean pooling"])) == whole
    assert results.read_text() == text


def test_variants_that_are_one_on_these_tasks_run_once(study):
    pairs = study_of_rows(
        DatasetDict(x=study.train_rows["questions"]), DatasetDict(x=study.test_rows["questions"]), "unused", 1
    )
    assert not {"no ranking", "InfoNCE + MSE", "InfoNCE + ranking", "equal weights"} & set(pairs.variants())
    assert "InfoNCE only" in pairs.variants()


PICTURES = {"anchor": None, "task": "ocr", "anchor_image": "{}.png", "positive": "Chữ {}."}
PLAIN = {"anchor": "Câu {}?", "positive": "Đáp {}.", "task": "instr"}
SCORED = {"anchor": "Câu {}.", "positive": "Câu {}, nhưng khác.", "task": "text_pair", "score": "scores"}
LAYOUTS = {
    "one task": ([PLAIN], ["instr"], False),
    "no score anywhere": ([PLAIN, PICTURES], ["instr", "ocr"], False),
    "pairs only": ([SCORED], [], True),
    "images only": ([PICTURES], ["ocr"], False),
    "mixed": ([PLAIN, SCORED, PICTURES], ["instr", "ocr"], True),
    "a score here and there": ([PLAIN | {"score": "some"}, SCORED], [], True),
    "pairs of one score": ([SCORED | {"score": 1.0}], ["text_pair"], False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_ones_own_in_every_layout(untrained, tmp_path, name):
    pytest.importorskip("plotly")
    kinds, recalls, correlates = LAYOUTS[name]
    for number in range(6):
        Image.new("RGB", (56, 56), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    values = {"scores": lambda n: n / 5, "some": lambda n: n / 5 if n > 2 else None}
    lines = []
    for number in range(6):
        for kind in kinds:
            row = {k: v.format(number) if isinstance(v, str) else v for k, v in kind.items()}
            if row.get("score") in values:
                row["score"] = values[row["score"]](number)
            lines.append(json.dumps(row))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = ["--train", str(tmp_path / "rows.jsonl"), "--eval", str(tmp_path / "rows.jsonl")]
    options = [*files, "--output", str(tmp_path / "out"), "--seeds", "1", "--steps", "1", "--variant", "mean pooling"]
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", *options])
    assert result.exit_code == 0, (result.output, result.exception)
    header, _, baseline, pooled = (tmp_path / "out" / "table.md").read_text().splitlines()
    columns = [cell.strip() for cell in header.split("|")[1:-1]]
    assert ("recall@1" in columns) == bool(recalls) and ("Spearman [95 %]" in columns) == correlates
    assert [column for column in columns if column in ("instr", "ocr", "text_pair")] == recalls
    assert baseline.startswith("| viPolyQwen | 1 |") and "nan" not in baseline + pooled


def test_too_few_rows_to_measure_with_are_found_before_training(untrained, tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps(PLAIN) + "\n")
    files = ["--train", str(tmp_path / "rows.jsonl"), "--eval", str(tmp_path / "rows.jsonl")]
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", *files, "--output", str(tmp_path / "out")])
    assert "1 test row of 'instr'" in str(result.exception)
    assert not untrained and not (tmp_path / "out").exists()


def test_a_study_that_cannot_begin_leaves_nothing_behind(tmp_path):
    (tmp_path / "rows.jsonl").write_text(2 * (json.dumps(PLAIN) + "\n"))
    files = ["--train", str(tmp_path / "rows.jsonl"), "--eval", str(tmp_path / "rows.jsonl")]
    options = ["--base", "vi-mini", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", *files, *options])
    assert result.exit_code and "vi-mini" in str(result.exception) and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_unreadable_images_are_left_out(untrained, tmp_path):
    """One of three rows is: two are trained on and measured."""
    pytest.importorskip("plotly")
    picture = {"task": "vqa_single", "anchor": "Gì đây?", "anchor_image": "bad.png", "positive": "Mèo"}
    Image.new("RGB", (56, 56)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [picture | {"anchor_image": "good.png", "positive": name} for name in ("Chó", "Gà")] + [picture]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ["--train", str(tmp_path / "rows.jsonl"), "--eval", str(tmp_path / "rows.jsonl"), "--skip-bad-images"]
    options = ["--seeds", "1", "--variant", "linear head", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", *files, *options])
    assert result.exit_code == 0, result.output
    assert [len(one["hits"]["vqa_single"]) for one in read_results(tmp_path / "out" / "results.jsonl")] == [2, 2]
    result = CliRunner().invoke(app, ["evaluate", "poly-mini", "--rows", files[1], "--skip-bad-images"])
    assert result.exit_code == 0 and "vqa_single" in result.output


def test_a_table_of_nothing(tmp_path):
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", "--output", str(tmp_path / "out"), "--table-only"])
    assert "no results yet" in str(result.exception) and not (tmp_path / "out").exists()


def made_up(name, seed, words, captions, cosines):
    hits = {"words": words, "captions": captions, "pairs": [0, 0, 0]}
    return {
        "variant": name,
        "seed": seed,
        "hits": hits,
        "cosines": {"pairs": cosines},
        "scores": {"pairs": [0, 0.5, 1]},
    }


RESULTS = [
    made_up(BASELINE, 0, [1, 0, 0, 0], [1, 1], [0.1, 0.2, 0.3]),
    made_up(BASELINE, 1, [0, 0, 0, 0], [1, 0], [0.3, 0.2, 0.1]),
    made_up("mean pooling", 0, [1, 1, 0, 0], [0, 1], [0.1, 0.2, 0.3]),
]


def test_figures_by_hand():
    baseline, mean_pooling = summarise(RESULTS)
    assert recall(RESULTS[0]) == 62.5  # of 25 and 100: each dataset weighs the same, and text pairs nothing
    assert baseline.recalls == {0: 62.5, 1: 25.0} and baseline.difference is None
    assert baseline.spearmans == {0: pytest.approx(100), 1: pytest.approx(-100)}
    # Only seed 0 is common: words +25, captions −50.
    assert mean_pooling.difference == -12.5
    assert mean_pooling.by_kind == {"words": 50.0, "captions": 50.0}
    low, high = mean_pooling.interval
    assert low < -12.5 < high


def test_the_interval_is_that_of_a_mean():
    rng = np.random.default_rng(1)
    ours, theirs = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    both = {BASELINE: theirs.tolist(), "linear head": ours.tolist()}
    _, changed = summarise([made_up(name, 0, hits, hits, [0, 1, 2]) for name, hits in both.items()])
    error = 100 * np.std(ours - theirs) / np.sqrt(400) / np.sqrt(2)  # two datasets, resampled each for itself
    half = (changed.interval[1] - changed.interval[0]) / 2
    assert half == pytest.approx(1.96 * error, rel=0.1)


@pytest.mark.slow
def test_where_all_have_scores_the_difference_is_that_of_the_correlations():
    def run(name, cosines):
        return {
            "variant": name,
            "seed": 0,
            "hits": {"x": [0] * 4},
            "cosines": {"x": cosines},
            "scores": {"x": [0, 1, 2, 3]},
        }

    baseline, other = summarise([run(BASELINE, [3, 2, 1, 0]), run("linear head", [0, 1, 2, 3])])
    assert baseline.recalls == {} and other.spearmans == {0: pytest.approx(100)}
    assert other.difference == pytest.approx(200) and other.interval == (pytest.approx(200), pytest.approx(200))
    assert table([baseline, other]).splitlines()[3] == (
        "| linear head | 1 | 100.0 [100.0, 100.0] | +200.0 [+200.0, +200.0] |"
    )


def test_seeds_are_no_further_rows():
    """Three runs that are alike say nothing more than one, so the intervals must not get narrower."""
    rng = np.random.default_rng(2)
    ours, theirs = (rng.integers(0, 2, 50).tolist() for _ in range(2))

    def intervals(seeds):
        both = {BASELINE: theirs, "linear head": ours}
        runs = [made_up(name, seed, hits, hits, [0.3, 0.1, 0.2]) for name, hits in both.items() for seed in seeds]
        _, changed = summarise(runs)
        return [*changed.interval, *changed.spearman_interval]

    assert intervals([0, 1, 2]) == pytest.approx(intervals([0]))


@pytest.mark.parametrize(
    ("name", "terms", "prompts", "given"),
    [
        (BASELINE, 3, True, {"info_nce_warm_up": 0.5, "learning_rate_mapping": {}}),
        ("no InfoNCE warm-up", 3, True, {"info_nce_warm_up": 0.0}),
        ("vision tower at a tenth of the rate", 3, True, {"learning_rate_mapping": {r"visual\.": 1.5e-4}}),
        ("no prefix", 3, False, {"prefix_side": "none"}),
        ("InfoNCE only", 1, True, {}),
    ],
)
def test_what_a_variant_trains_with_and_is_measured_with(study, monkeypatch, name, terms, prompts, given):
    seen, measured = {}, {}
    monkeypatch.setattr(ablation, "train_vipolyqwen", lambda *_, **arguments: seen.update(arguments))

    def evaluator_of(rows, **settings):
        evaluator = vipolyqwen_evaluator(rows, **settings)
        measured["evaluator"] = evaluator
        return evaluator

    monkeypatch.setattr(ablation, "vipolyqwen_evaluator", evaluator_of)
    study.run(name, seed=0)
    assert len(seen["loss"].tasks[0].terms) == terms
    assert bool(measured["evaluator"].prompt_names) is prompts
    for key, value in given.items():
        assert seen[key] == (pytest.approx(value) if isinstance(value, dict) else value)


def test_table_and_plot():
    pytest.importorskip("plotly")
    summaries = summarise(RESULTS)
    lines = table(summaries).splitlines()
    assert lines[2].startswith("| viPolyQwen | 2 | 43.8 ± 26.5 |  | 12.5 | 75.0 | 0.0 ± 141.4")
    assert "| mean pooling | 1 | 50.0 | -12.5 [" in lines[3]
    (trace,) = plot(summaries).data
    assert list(trace.y) == ["mean pooling"] and list(trace.x) == [-12.5]


def test_command(tmp_path):
    pytest.importorskip("plotly")
    options = ["--output", str(tmp_path), "--seeds", "1", "--steps", "1", "--rows", "4", "--test-rows", "3"]
    result = CliRunner().invoke(app, ["ablate", "vipolyqwen", *options, "--variant", "linear head"])
    assert result.exit_code == 0, result.output
    assert "linear head, seed 0: recall@1" in result.output and "'loss'" not in result.output
    assert "| linear head | 1 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "plot.html").stat().st_size > 1000
    assert [json.loads(line)["variant"] for line in (tmp_path / "results.jsonl").open()] == [BASELINE, "linear head"]
