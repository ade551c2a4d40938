# %% [markdown]
# # Geometry before and after
#
# Training moves sentences: what follows from a sentence should come close to it, all else should spread out. This
# notebook shows the same texts in the space of a model before and after its training, as two linked maps, and beside
# them the figures that a map cannot show, with words alone (TF-IDF) as the control.
#
# The example model is `vi-mini` with attention pooling, trained for seconds with ViCLSR on sample rows. None of the
# passages below was among those rows.

# %% [markdown]
# <!-- found: Look around; Do neighbours share a topic? -->
#
# ![Look around](pictures/04-look-around.png)
#
# ![Do neighbours share a topic?](pictures/04-do-neighbours-share-a-topic.png)
#
# What a run has found:
#
# - Training has kept 76% of all five nearest neighbours; by chance it would be 2%.
# - Neighbours with the same topic: before 29%, after 27%, TF-IDF 23%, chance 3%.
# - before: entailment is nearer than contradiction for 40%, than neutral for 71%.
# - after: entailment is nearer than contradiction for 40%, than neutral for 69%.
# - trained: modality gap 0.11 (0 is none, 2 the largest), 100% of the captions find their own drawing of 60
#   (chance 2 %).
# - random weights: modality gap 0.88 (0 is none, 2 the largest), 2% of the captions find their own drawing of 60
#   (chance 2 %).

# %%
MODEL = None  # or a folder or a name on the hub

# %%
from transformers import AutoModel, set_seed

from st_vi import load
from st_vi.recipes.examples.text_models import cache_folder, example_text_model

if MODEL is None:
    before, after = example_text_model("attention", trained=False), example_text_model("attention")
else:
    before, after = load(MODEL), load(MODEL)
    set_seed(0)
    before[0].model = AutoModel.from_config(before[0].model.config).to(before.device, before.dtype)

# %% [markdown]
# A saved model does not tell which weights its training began with. So with a model of your own, *before* is its
# pooling and head over a backbone with random weights, and what a pretrained backbone already knew counts as training.
# If you still have the model that you began with, write `before = load("…")` below those lines, and the notebook shows
# what your training alone has moved.
#
# ## Passages
#
# All 204 passages of the sample set, with their topics.

# %%
from st_vi.data import sample_retrieval

topics = {row["passage"]: row["topic"].replace("_", " ") for row in sample_retrieval()}
passages, labels = list(topics), list(topics.values())
embeddings = [model.encode(passages, convert_to_tensor=True, show_progress_bar=True) for model in (before, after)]

# %% [markdown]
# ## Look around
#
# - **Lasso** some points in one map, and see where they are in the other. **Click** one, or type a part of its text in
#   *find text*: the table lists its nearest neighbours before and after, those that stayed in bold. *let go* ends it.
# - **labels**: choose which topics are coloured; hold Ctrl to choose several.
# - **map**: UMAP is fitted once, here, and kept. It takes some seconds.
# - **colour by** *overlap*: yellow points have kept their neighbours, blue ones have new ones.
# - **neighbours**: how many of them count.

# %%
from st_vi.viz.widgets.geometry_explorer import GeometryExplorer

explorer = GeometryExplorer(*embeddings, texts=passages, labels=labels, k=5, cache=cache_folder())
kept = float(explorer.overlap.mean())
by_chance = 5 / (len(passages) - 1)
print(f"Training has kept {kept:.0%} of all five nearest neighbours; by chance it would be {by_chance:.0%}.")
explorer

# %% [markdown]
# ## Do neighbours share a topic?
#
# A map is squeezed into two dimensions; this is counted in all of them: of the five nearest passages, how many have the
# same topic? The controls are TF-IDF, which knows only the words, and chance.

# %%
import numpy as np
import plotly.graph_objects as go
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from st_vi.evaluation.geometry import nearest_neighbours
from st_vi.viz import project, scatter, use_stills
from st_vi.viz.theme import styled

use_stills()  # beside each figure its picture, for viewers that run no scripts
words = torch.tensor(TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit_transform(passages).toarray())
spaces = {"before": embeddings[0], "after": embeddings[1], "TF-IDF": words.float()}
topic = np.array(labels)
same = topic[:, None] == topic
shared = {
    name: float(same[np.arange(204)[:, None], nearest_neighbours(x.cpu(), 5)].mean()) for name, x in spaces.items()
}
shared["chance"] = float((same.sum() - len(topic)) / (len(topic) * (len(topic) - 1)))

print("Neighbours with the same topic: " + ", ".join(f"{name} {share:.0%}" for name, share in shared.items()) + ".")
figure = go.Figure(go.Bar(x=list(shared), y=list(shared.values())))
figure.update_yaxes(title="share", tickformat=".0%")
styled(figure, "Neighbours with the same topic, of five")

# %%
scatter(project(spaces["TF-IDF"]), labels=labels, texts=passages, title="The same passages by their words alone")

# %% [markdown]
# ## What follows and what contradicts
#
# Held-out NLI rows: after training, is what follows from a premise nearer to it than what contradicts it? Counted is
# the share of premises for which it is; chance is 50 %. The control is the neutral hypothesis, which is about the same
# things and neither follows nor contradicts.

# %%
from st_vi.data import sample_nli
from st_vi.viz.distributions import similarity_histogram, stacked

rows = sample_nli("test").select(range(450))  # of 150 premises
premises = list(dict.fromkeys(rows["premise"]))
hypotheses = {
    label: [row["hypothesis"] for row in rows if row["label"] == label] for label in sorted(set(rows["label"]))
}
cosines = {}
for name, model in {"before": before, "after": after}.items():
    anchors = model.encode(premises, convert_to_tensor=True).float()
    cosines[name] = {
        label: torch.cosine_similarity(anchors, model.encode(texts, convert_to_tensor=True).float()).cpu()
        for label, texts in hypotheses.items()
    }
nearer = {
    name: {other: float((of["entailment"] > of[other]).double().mean()) for other in ("contradiction", "neutral")}
    for name, of in cosines.items()
}
for name, of in nearer.items():
    contradiction, neutral = of["contradiction"], of["neutral"]
    print(f"{name}: entailment is nearer than contradiction for {contradiction:.0%}, than neutral for {neutral:.0%}.")
stacked([similarity_histogram(of, name) for name, of in cosines.items()])

# %% [markdown]
# ## What to look for
#
# - **Topics** are there before ViCLSR: the encoder has them from its own training, and they are more than shared words.
#   A short training moves them little.
# - **Cosines.** Before training all texts share a narrow cone, and even random pairs are similar; training opens it.
#   Whether it also tells what follows from what contradicts is the test that counts. These rows are written so that
#   words give nothing away, and a small encoder does not pass it: its cosine says "of the same thing", not "true".
# - **Spectrum.** If the curve falls late, the embeddings use many directions. The effective rank is that in one number.
# - **Uniformity and mean cosine** tell how evenly the sphere is filled.
# - **Kept neighbours.** The share of neighbours that training has left in place. It needs no map, and does not depend
#   on how one is drawn.
#
# ## Texts and images
#
# A model that takes both often keeps them in two separate cones: a distance between their centres that is there before
# any training ([Liang et al. 2022](https://arxiv.org/abs/2203.02053)). Below, drawings and their captions in
# `poly-mini`, or in `MODEL` if it takes images; the control is a small Qwen2-VL with random weights. A gap does not
# have to keep a caption from finding its image, so both are measured. If a caption is nearer to every other caption
# than to its own image, look at the gap first.

# %%
from torch.nn.functional import normalize

from st_vi import build_vipolyqwen
from st_vi.data.generated.scenes import caption, draw, scene
from st_vi.evaluation.geometry import modality_gap
from st_vi.recipes.examples.small_models import small_qwen2_vl
from st_vi.viz.maps import side_by_side

scenes = [scene("test", seed) for seed in range(60)]
captions, drawings = [caption(shown, seed=0) for shown in scenes], [draw(shown) for shown in scenes]
small_qwen2_vl(captions, "outputs/geometry/qwen")
both = {
    "trained": after if after.supports("image") else load("poly-mini"),
    "random weights": build_vipolyqwen("outputs/geometry/qwen", embedding_dimension=128),
}

gap, found, maps = {}, {}, {}
for name, model in both.items():
    texts, images = (
        normalize(model.encode(inputs, convert_to_tensor=True).float().cpu()) for inputs in (captions, drawings)
    )
    gap[name] = modality_gap(texts, images)
    found[name] = float(((texts @ images.T).argmax(dim=1) == torch.arange(60)).float().mean())
    maps[name] = project(torch.cat([texts, images]))
    print(f"{name}: modality gap {gap[name]:.2f} (0 is none, 2 the largest), ", end="")
    print(f"{found[name]:.0%} of the captions find their own drawing of 60 (chance 2 %).")
side_by_side({"PCA": maps}, labels=["text"] * 60 + ["image"] * 60, texts=captions * 2)
