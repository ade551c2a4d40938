# %% [markdown]
# # Loss laboratory
#
# viPolyQwen's loss is a sum of terms: InfoNCE pulls a pair together and pushes all other rows away, ScoreMSE asks for
# the similarity that a person gave, PairwiseRank for the right order, and so on. Which of them moves the embeddings,
# and where to? Here the real `DLELoss` trains a few points on a sphere, and you can turn every knob while it does.

# %% [markdown]
# <!-- found: Collapse, and its cure -->
#
# ![Collapse, and its cure](pictures/05-collapse-and-its-cure.png)
#
# What a run has found:
#
# - After 200 steps, the cosine of twins is 0.73, or 0.95 if the loss knows of them.
# - pairs hard to tell apart: InfoNCE ends at 1.90 alone, at 3.42 beside a margin term of weight 20.
# - pairs easy to tell apart: InfoNCE ends at 0.08 alone, at 0.15 beside a margin term of weight 20.
# - All vectors alike: log 32 = 3.47.
# - info_nce: 2.30 in the first quarter of the steps, 0.60 in the last.
# - score_mse: 0.29 in the first quarter of the steps, 0.14 in the last.
# - Pairs in the right order: 75% and 73%; by chance 50%.
# - Held-out partners are nearer than any two texts by 0.09 at first, by 0.42 at the end.
# - info_nce pulls hardest: 86% of the gradient (equal: 33%).

# %%
MODEL = None  # or a folder or a name on the hub
LOG = None  # or the trainer_state.json of a training with st_vi, or the checkpoint folder that has it

# %% [markdown]
# ## The laboratory
#
# Each circle is an anchor, each diamond a positive, and a line ties the two of a pair. Points of one colour are
# *twins*: rows that mean the same, but that a batch takes for negatives of each other. Grey rows have no twin.
#
# - Press **Play** (▶), or **Step**. Alignment falls as pairs meet; uniformity falls as they spread: follow the path.
# - **temperature**: the lower, the more of the push goes to the nearest negatives (lower right). For a row with a twin,
#   the nearest negative is soon that twin: the red part is the push in the wrong direction. Watch tolerance, the cosine
#   of twins.
# - **tell the loss which they are** leaves twins out of the negatives, as `mask_duplicates` does for equal texts.
# - **λ** and the switches: *share of the gradient* is how strongly a term pulls. *Share of the step*, the pale bars, is
#   how much of that goes in the direction of the sum. A term below zero is overruled by the others.
# - **batch size**: fewer rows, fewer negatives, and twins meet less often. *false negatives* is the share of rows that
#   have a twin.
# - **terms of task** takes terms, weights and margins of one of viPolyQwen's tasks. **Reset** starts again.

# %%
from st_vi.viz.free_points import ALL_TERMS, FreePoints
from st_vi.viz.widgets.loss_laboratory import LossLaboratory

twins = {}
for told in (False, True):
    points = FreePoints(twins=0.5)
    for _ in range(200):
        points.step(ALL_TERMS, spare_twins=told)
    twins[told] = points.look(ALL_TERMS).tolerance
print(f"After 200 steps, the cosine of twins is {twins[False]:.2f}, or {twins[True]:.2f} if the loss knows of them.")
explorer = LossLaboratory()
explorer

# %% [markdown]
# These points are free: no model connects them, so one pair learns nothing from another, and a step can put a point
# anywhere. And this sphere is crowded: in hundreds of dimensions there is room for all negatives, and uniformity comes
# near −4. What carries over is which term pulls, how hard, and at which rows.
#
# ## Collapse, and its cure
#
# A small network is trained on pairs of noisy points, with a margin term beside InfoNCE: the positive should be nearer
# than the hardest negative of the batch. While pairs are hard to tell apart, the hardest negative *is* nearer, and the
# cheapest way to a small margin loss is to make all vectors alike. InfoNCE is then log B, and stays there. **Move the
# slider** to cause it and to cure it. The dotted lines are the control, InfoNCE alone; where pairs are easy to tell
# apart, no weight of the margin does harm. A new model can tell nothing apart: `info_nce_warm_up` of
# `train_vipolyqwen` leaves the other terms out until it has learned to.

# %%
from math import log as ln

from st_vi.viz import use_stills
from st_vi.viz.collapse import BATCH, at_the_end, collapse_figure, collapse_runs

use_stills()  # beside each figure its picture, for viewers that run no scripts
runs = collapse_runs()
ends = {name: at_the_end(losses) for name, losses in runs.items()}
for kind in dict.fromkeys(kind for kind, _ in runs):
    weights = sorted(weight for name, weight in runs if name == kind)
    alone, most = ends[kind, weights[0]], ends[kind, weights[-1]]
    print(f"{kind}: InfoNCE ends at {alone:.2f} alone, at {most:.2f} beside a margin term of weight {weights[-1]:g}.")
print(f"All vectors alike: log {BATCH} = {ln(BATCH):.2f}.")
collapse_figure(runs)

# %% [markdown]
# ## A real training
#
# The same terms in the log of a training: the last layer of `vi-mini` and an attention pooling, on the 106 similarity
# pairs that ship with st_vi. `DLEMonitor` writes each term as its mean over the rows that had it, without its weight,
# and `GeometryEvaluator` measures held-out rows on the way.

# %%
from contextlib import redirect_stdout
from io import StringIO

from datasets import Dataset, disable_progress_bars

from st_vi.data import sample_sts
from st_vi.evaluation.geometry.evaluator import GeometryEvaluator
from st_vi.recipes import train_vipolyqwen
from st_vi.recipes.examples.text_models import example_text_model

disable_progress_bars()


def scored_pairs(split):
    rows = sample_sts(split)
    scores = [score / 5 for score in rows["score"]]
    columns = {"anchor": rows["sentence1"], "positive": rows["sentence2"], "score": scores}
    return Dataset.from_dict({**columns, "task": ["text_pair"] * len(rows)})


held_out, log, student = scored_pairs("test"), LOG, None
if log is None:
    same = held_out.filter(lambda score: score >= 0.8, input_columns="score")
    student = example_text_model("attention", trained=False)
    student[0].model.requires_grad_(False)
    student[0].model.encoder.layer[-1].requires_grad_(True)  # seconds, not minutes
    with redirect_stdout(StringIO()):  # the log is drawn below
        trainer = train_vipolyqwen(
            student,
            scored_pairs("train"),
            "outputs/loss_laboratory",
            overwrite=True,  # a notebook is run again and again
            evaluator=GeometryEvaluator(same["anchor"], same["positive"]),
            num_train_epochs=5,
            per_device_train_batch_size=28,
            gradient_accumulation_steps=1,
            learning_rate=3e-4,
            logging_steps=1,
            eval_strategy="steps",
            eval_steps=4,
            eval_on_start=True,
            save_strategy="no",
            load_best_model_at_end=False,
            disable_tqdm=True,
            use_cpu=True,
        )
    log = trainer.state.log_history

# %%
from statistics import fmean

from st_vi.viz.dynamics import gradient_share_bars, loss_components, read_log

logged = [entry for entry in read_log(log) if "loss" in entry]
quarter = max(1, len(logged) // 4)
fallen = {}
for term in ("info_nce", "score_mse"):
    if values := [entry[name] for entry in logged if (name := f"dle/text_pair_{term}") in entry]:
        fallen[term] = fmean(values[:quarter]), fmean(values[-quarter:])
        first, last = fallen[term]
        print(f"{term}: {first:.2f} in the first quarter of the steps, {last:.2f} in the last.")
if ordered := [entry[name] for entry in logged if (name := "dle/text_pair_pairwise_rank_in_order") in entry]:
    in_order = fmean(ordered[:quarter]), fmean(ordered[-quarter:])
    print(f"Pairs in the right order: {in_order[0]:.0%} and {in_order[1]:.0%}; by chance 50%.")
components = loss_components(log)
components

# %% [markdown]
# The dotted line is the ranking loss of a model that finds all pairs equally similar. The ranking loss is low from the
# start, so look at the share of pairs in the right order below it: `vi-mini` had most of them in order before, and a
# few steps do not change that. The training loss alone would hide it.
#
# ## The path of that training
#
# Measured on held-out texts. `vi-mini` begins in the lower right corner: texts near their partners, and near everything
# else. Training spreads them. Partners drift apart too, so alignment alone says that things got worse; what counts is
# how much nearer a partner is than any other text. That is printed below: the mean cosine of partners minus that of all
# pairs.

# %%
from st_vi.viz.plane import alignment_uniformity_plane

measured = [entry for entry in read_log(log) if "eval_alignment" in entry]
path = [(entry["eval_alignment"], entry["eval_uniformity"]) for entry in measured]
gaps = [1 - entry["eval_alignment"] / 2 - entry["eval_mean_cosine"] for entry in measured]  # ‖x − y‖² = 2 − 2 cos
if gaps:
    print(f"Held-out partners are nearer than any two texts by {gaps[0]:.2f} at first, by {gaps[-1]:.2f} at the end.")
plane = alignment_uniformity_plane({"start": path[0]}, path) if path else None
plane

# %% [markdown]
# ## Who pulls in a real batch
#
# The gradient of each term at the embeddings of the held-out pairs: of `MODEL`, or of the model just trained. A
# term whose loss is small can pull harder than one whose loss is large, and one that pulls hard can pull against the
# rest.

# %%
import torch

from st_vi import DLELoss, load
from st_vi.evaluation.geometry import gradient_shares

model = load(MODEL) if MODEL else student or example_text_model("attention")
sides = [model.encode(held_out[side], convert_to_tensor=True).clone() for side in ("anchor", "positive")]
sides = [side.float().cpu().requires_grad_() for side in sides]
labels = torch.tensor([[0.0, score] for score in held_out["score"]])
terms = DLELoss(model).compute_loss_from_embeddings(sides, labels)
terms = {name.removeprefix("text_pair_"): value for name, value in terms.items() if name.startswith("text_pair_")}
shares = gradient_shares(terms, sides)
strongest = max(shares, key=lambda name: float(shares[name][0]))
print(f"{strongest} pulls hardest: {float(shares[strongest][0]):.0%} of the gradient (equal: {1 / len(shares):.0%}).")
gradient_share_bars(shares, title="Gradient of the held-out pairs, by term")
