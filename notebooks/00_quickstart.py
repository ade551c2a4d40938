# %% [markdown]
# # Quick start: ViCLSR from rows to `encode()`
#
# ViCLSR learns sentence embeddings from natural-language inference: what follows from a sentence is pulled towards it,
# what contradicts it is pushed away. The cells below read rows, train, measure, save and reload; nothing is downloaded.
#
# The encoder is `vi-mini`, a small one that comes with the package and knows Vietnamese.

# %% [markdown]
# <!-- found: Look at the similarities -->
#
# ![Look at the similarities](pictures/00-look-at-the-similarities.png)
#
# What a run has found:
#
# - Held-out premises nearer to what follows than to what contradicts: 49.5% before, 49.8% after training
#   (standard error 2.9%).
# - before: mean cosine of what follows 0.94, of unrelated sentences 0.84.
# - after: mean cosine of what follows 0.70, of unrelated sentences 0.13.

# %%
MODEL = None  # or an encoder: a folder, or a name on the hub such as "FacebookAI/xlm-roberta-large"

# %% [markdown]
# ## Rows
#
# Rows are (premise, hypothesis, label). `nli_to_triplets` makes (anchor, positive, negative) of them, and its report
# accounts for every row. The sample set has its own held-out part; for a file of yours, `read_rows("my_nli.jsonl")` and
# `split_by_anchor(rows, test_size=0.2)`, which keeps all rows of a premise on one side.

# %%
from st_vi.data import nli_to_triplets, sample_nli

rows = {"train": sample_nli("train"), "test": sample_nli("test")}
triplets = nli_to_triplets(rows["train"])
print(triplets.report)

# %% [markdown]
# ## Model
#
# A `SentenceTransformer` like any other. `vi-mini` has its pooling already; any other encoder gets ViCLSR's from
# `build_viclsr`: the vector of the first token, a linear head, unit length.

# %%
from transformers import set_seed

from st_vi import build_viclsr, load

set_seed(0)
model = build_viclsr(MODEL) if MODEL else load("vi-mini")
model

# %% [markdown]
# ## Encode
#
# Three of the training rows, each with what follows from it and what contradicts it.

# %%
sentences = [text for triplet in triplets["triplets"].select(range(14, 17)) for text in triplet.values()]
before = model.encode(sentences)
model.similarity(before, before)

# %% [markdown]
# ## Train
#
# The stock trainer does the work. To keep this to seconds, only the last layer of `vi-mini` is trained; without the two
# `requires_grad_` lines all of it learns. `hard_negative_weight` makes contradictions count more.

# %%
from st_vi import SupConNLILoss, train_viclsr
from st_vi.evaluation import NLISimilarityEvaluator
from st_vi.recipes.training.progress import Bar

held_out = NLISimilarityEvaluator(rows["test"]["premise"], rows["test"]["hypothesis"], rows["test"]["label"])
figures = {"before": held_out(model)}
if MODEL is None:
    model[0].model.requires_grad_(False)
    model[0].model.encoder.layer[-1].requires_grad_(True)
trainer = train_viclsr(
    model,
    triplets,
    "outputs/quickstart/model",
    overwrite=True,  # a notebook is run again and again
    loss=SupConNLILoss(model, temperature=0.05, hard_negative_weight=1.0),
    num_train_epochs=1,
    per_device_train_batch_size=32,
    save_strategy="no",
    callbacks=[Bar()],  # shows the loss; the stock bar prints the log as well
    seed=0,
    **({"learning_rate": 5e-4} if MODEL is None else {}),
)

# %% [markdown]
# ## Evaluate
#
# `triplet_accuracy` is the share of premises that are closer to what follows than to what contradicts; `nli_spearman`
# is the rank correlation of the cosines with contradiction < neutral < entailment. All rows below are held out.

# %%
import pandas as pd

figures["after"] = held_out(model)
accuracy = {name: of["triplet_accuracy"] for name, of in figures.items()}
error = (accuracy["after"] * (1 - accuracy["after"]) / len(set(rows["test"]["premise"]))) ** 0.5
print(
    f"Held-out premises nearer to what follows than to what contradicts: {accuracy['before']:.1%} before, "
    f"{accuracy['after']:.1%} after training (standard error {error:.1%})."
)
pd.DataFrame(figures).T.round(3)

# %% [markdown]
# Both stay near chance: the sample rows are written so that shared words give nothing away, and what contradicts a
# premise often shares more words with it than what follows from it. `vi-mini` has also seen the training rows before.
# With other people's rows, and with all layers trained, there is a gain: see the page of benchmarks. What training did
# change here is shown below.
#
# ## Save and reload
#
# `train_viclsr` has saved the model. `load` runs modules of st_vi and sentence-transformers, and no other code.

# %%
reloaded = load("outputs/quickstart/model")
after = reloaded.encode(sentences)
bool((after == model.encode(sentences)).all())

# %% [markdown]
# ## An image, a text and both
#
# viPolyQwen gives one vector for each of them; a prompt names the task. This Qwen2-VL is small and untrained: it shows
# how to call the model, and its vectors mean nothing yet. The real one is
# `build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")`.

# %%
from IPython.display import display

from st_vi import build_vipolyqwen
from st_vi.data.generated.scenes import Scene, Shape, draw
from st_vi.recipes.examples.small_models import small_qwen2_vl

picture = draw(Scene((Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "xanh dương", "to", (2, 2)))))
small_qwen2_vl([*rows["train"]["premise"]], "outputs/quickstart/qwen")
polyglot = build_vipolyqwen("outputs/quickstart/qwen", embedding_dimension=128)
question = {"image": picture, "text": "Hình tròn có màu gì?"}
display(picture)
polyglot.encode([picture, "Một hình tròn đỏ và một ngôi sao xanh dương.", question]).shape

# %% [markdown]
# ## Look at the similarities
#
# The buttons switch between the model before and after training; hover over a cell to read its sentences. Training
# spreads the vectors: sentences of different triplets, which have nothing to do with each other, move apart.

# %%
import plotly.graph_objects as go

from st_vi.viz import use_stills
from st_vi.viz.theme import SEQUENTIAL, styled

use_stills()  # beside each figure its picture, for viewers that run no scripts
names = [f"{number} {role}" for number in (1, 2, 3) for role in ("premise", "follows", "contradicts")]
cosines = {"before": model.similarity(before, before).tolist(), "after": model.similarity(after, after).tolist()}
strangers = {
    name: sum(z[i][j] for i in range(9) for j in range(9) if i // 3 != j // 3) / 54 for name, z in cosines.items()
}
partners = {name: sum(z[i][i + 1] for i in (0, 3, 6)) / 3 for name, z in cosines.items()}
for name in cosines:
    print(f"{name}: mean cosine of what follows {partners[name]:.2f}, of unrelated sentences {strangers[name]:.2f}.")
pairs = [[f"{one}<br>{other}" for other in sentences] for one in sentences]
matrix = go.Heatmap(
    z=cosines["after"],
    x=names,
    y=names,
    customdata=pairs,
    hovertemplate="%{customdata}<br>cosine %{z:.2f}<extra></extra>",
    texttemplate="%{z:.2f}",
    colorscale=SEQUENTIAL,
    zmin=min(min(map(min, values)) for values in cosines.values()),
    zmax=1,
    showscale=False,  # the cells have their numbers
)
buttons = [{"label": name, "method": "restyle", "args": [{"z": [values]}]} for name, values in cosines.items()]
figure = styled(go.Figure(matrix), "Cosines of nine training sentences", height=560)
figure.update_layout(
    updatemenus=[
        {"type": "buttons", "direction": "right", "buttons": buttons, "active": 1, "x": 0, "y": 1.1, "xanchor": "left"}
    ],
    margin={"t": 110},
)
figure.update_yaxes(autorange="reversed")
figure
