# %% [markdown]
# # Quick start: ViCLSR from rows to `encode()`
#
# ViCLSR learns sentence embeddings from natural-language inference: what follows from a sentence is pulled towards it,
# what contradicts it is pushed away. The cells below read rows, train, measure, save and reload; nothing is downloaded.
#
# With `MODEL = None` the encoder is small and has random weights. It shows every step, not how good a ViCLSR can be.

# %%
MODEL = None  # or an encoder: a folder, or a name on the hub such as "FacebookAI/xlm-roberta-large"

# %% [markdown]
# ## Rows
#
# Rows are (premise, hypothesis, label). `split_by_anchor` keeps all rows of a premise on one side, and the report
# accounts for every row. Your own file: `read_rows("my_nli.jsonl")`.

# %%
from st_vi.data import nli_to_triplets, sample_nli, split_by_anchor

rows = split_by_anchor(sample_nli().select(range(1200)), test_size=0.2)  # 400 premises are enough here
triplets = nli_to_triplets(rows["train"])
print(triplets.report)

# %% [markdown]
# ## Model
#
# A `SentenceTransformer` like any other: encoder, vector of the first token, linear head, unit length.

# %%
from transformers import set_seed

from st_vi import build_viclsr
from st_vi.recipes.examples.small_models import small_encoder

set_seed(0)
if MODEL is None:
    small_encoder([*rows["train"]["premise"], *rows["train"]["hypothesis"]], "outputs/quickstart/base")
model = build_viclsr(MODEL or "outputs/quickstart/base")
model

# %% [markdown]
# ## Encode
#
# Three of the training rows, each with what follows from it and what contradicts it. Before training all nine sentences
# look much alike.

# %%
sentences = [text for triplet in triplets["triplets"].select(range(14, 17)) for text in triplet.values()]
before = model.encode(sentences)
model.similarity(before, before)

# %% [markdown]
# ## Train
#
# The stock trainer does the work. On a pretrained encoder the defaults of `train_viclsr` stand; a small one with random
# weights wants a higher learning rate and more epochs.

# %%
from st_vi import SupConNLILoss, train_viclsr
from st_vi.evaluation import NLISimilarityEvaluator

measure = {
    name: NLISimilarityEvaluator(part["premise"], part["hypothesis"], part["label"]) for name, part in rows.items()
}
figures = {f"{name}, before": evaluator(model) for name, evaluator in measure.items()}
small = {"learning_rate": 1e-3, "num_train_epochs": 10, "dataloader_pin_memory": False} if MODEL is None else {}
trainer = train_viclsr(
    model,
    triplets,
    "outputs/quickstart/model",
    overwrite=True,  # a notebook is run again and again
    loss=SupConNLILoss(model, temperature=0.05),
    per_device_train_batch_size=64,
    save_strategy="no",
    logging_strategy="epoch",
    **small,
)

# %% [markdown]
# ## Evaluate
#
# `triplet_accuracy` is the share of premises that are closer to what follows than to what contradicts; `nli_spearman`
# is the rank correlation of the cosines with contradiction < neutral < entailment.

# %%
import pandas as pd

figures |= {f"{name}, after": evaluator(model) for name, evaluator in measure.items()}
pd.DataFrame(figures).T.sort_index(ascending=False).round(3)

# %% [markdown]
# A small encoder with random weights learns its training rows by heart and little that holds for the test rows. What it
# lacks is a language model's training: set `MODEL` to a pretrained encoder and compare the test rows.
#
# ## Save and reload
#
# `train_viclsr` has saved the model. `load` runs modules of st_vi and sentence-transformers, and no other code.

# %%
from st_vi import load

reloaded = load("outputs/quickstart/model")
after = reloaded.encode(sentences)
bool((after == model.encode(sentences)).all())

# %% [markdown]
# ## A picture, a text and both
#
# viPolyQwen gives one vector for each of them; a prompt names the task. This Qwen2-VL is small and untrained, so its
# vectors mean nothing yet. The real one is `build_vipolyqwen("Qwen/Qwen2-VL-2B-Instruct")`.

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
# The buttons switch between the model before and after its training; the mouse shows the sentences. Training spreads
# the vectors, and brings most premises closer to what follows than to what contradicts.

# %%
import plotly.graph_objects as go

from st_vi.viz.theme import SEQUENTIAL, styled

names = [f"{number} {role}" for number in (1, 2, 3) for role in ("premise", "follows", "contradicts")]
cosines = {"before": model.similarity(before, before).tolist(), "after": model.similarity(after, after).tolist()}
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
    colorbar={"title": "cosine"},
)
buttons = [{"label": name, "method": "restyle", "args": [{"z": [values]}]} for name, values in cosines.items()]
figure = styled(go.Figure(matrix), "Cosines of nine training sentences", height=560)
figure.update_layout(
    updatemenus=[{"type": "buttons", "direction": "right", "buttons": buttons, "active": 1, "x": 1, "y": 1.14}],
    width=860,
    margin={"l": 110, "b": 60, "t": 80},
)
figure.update_yaxes(autorange="reversed")
figure
