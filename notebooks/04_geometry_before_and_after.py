# %% [markdown]
# # Geometry before and after
#
# Training moves sentences: what follows from each other should come close, all else should spread out. This notebook
# puts the same sentences in the space of a model before and after its training, as two maps that are linked, and
# beside them the figures that a map cannot show.
#
# The example model is small, and three quarters of the sentences are from its training: look at the held-out pairs
# before you believe a map.

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
    before[0].model = AutoModel.from_config(before[0].model.config).to(before.device)

# %% [markdown]
# A saved model does not tell which weights its training began with. So with a model of yours, *before* is its own
# pooling and head over a backbone with random weights: what a pretrained backbone knew already counts as training. If
# you still have the model that you began with, write `before = load("…")` below those lines, and the notebook shows
# what your training alone has moved.
#
# ## Sentences
#
# Every distinct sentence once, with its topic, and the pairs of rows that follow from or contradict each other.

# %%
from st_vi.data import sample_nli

rows = sample_nli().select(range(1200))  # 400 premises with three hypotheses each
topics = {row[side]: row["topic"] for row in rows for side in ("premise", "hypothesis")}
sentences = list(topics)
number = {sentence: index for index, sentence in enumerate(sentences)}


def pairs(label, split):
    return [
        (number[row["premise"]], number[row["hypothesis"]])
        for row in rows
        if row["label"] == label and row["split"] == split
    ]


groups = {
    "entailment, trained on": pairs("entailment", "train"),
    "entailment, held out": pairs("entailment", "test"),
    "contradiction, held out": pairs("contradiction", "test"),
}
embeddings = [model.encode(sentences, convert_to_tensor=True, show_progress_bar=True) for model in (before, after)]

# %% [markdown]
# ## Look around
#
# - **Lasso** some points in one map, and see where they are in the other. **Click** one, or write a part of it in
#   *find text*: its nearest neighbours before and after stand in the table, what stayed is bold. *let go* ends it.
# - **labels**: choose the topics that are in colour; with Ctrl several.
# - **map**: UMAP is fitted once, here, and kept. It takes about half a minute.
# - **colour by** *overlap*: yellow points have kept their neighbours, blue ones have got new ones.
# - **neighbours**: how many count.

# %%
from st_vi.viz.widgets.geometry_explorer import GeometryExplorer

explorer = GeometryExplorer(
    *embeddings,
    texts=sentences,
    labels=list(topics.values()),
    pairs=groups,
    cache=cache_folder(),
)
explorer

# %% [markdown]
# ## What to look for
#
# - **Cosines.** Before training they say little: all sentences share a cone, and even random pairs are similar. After
#   it, random pairs should lie around zero. How far the pairs that were trained on lie to the right of the held-out
#   ones is what the model has learnt by heart. Held-out entailment against held-out contradiction is the real test:
#   both share most words with their premise, and a small model hardly tells them apart.
# - **Spectrum.** A curve that falls late uses many directions. The effective rank is that in one number.
# - **Uniformity and mean cosine** say the same of the sphere: how evenly it is filled.
# - **Kept neighbours.** The share of the neighbours that training has left alone. It needs no map, and no method of
#   drawing one changes it.
#
# ## Texts and pictures
#
# A model that takes both often keeps them in two separate cones: a distance between their centres that is there before
# any training ([Liang et al. 2022](https://arxiv.org/abs/2203.02053)). Below, drawings and their captions in a small
# Qwen2-VL from random weights, or in `MODEL` if it takes pictures. Training should make this *modality gap* smaller; if
# a caption is nearer to every caption than to its own picture, look there first.

# %%
import torch

from st_vi import build_vipolyqwen
from st_vi.data.generated.scenes import caption, draw, scene
from st_vi.evaluation.geometry import modality_gap
from st_vi.recipes.examples.small_models import small_qwen2_vl
from st_vi.viz.maps import project, scatter

scenes = [scene("test", seed) for seed in range(60)]
captions = [caption(shown, seed=0) for shown in scenes]
if after.supports("image"):
    both = after
else:
    small_qwen2_vl(captions, "outputs/geometry/qwen")
    both = build_vipolyqwen("outputs/geometry/qwen", embedding_dimension=128)

texts = both.encode(captions, convert_to_tensor=True)
pictures = both.encode([draw(shown) for shown in scenes], convert_to_tensor=True)
gap = modality_gap(texts, pictures)

scatter(
    project(torch.cat([texts, pictures])),
    labels=["text"] * len(texts) + ["picture"] * len(pictures),
    texts=captions * 2,
    title=f"Modality gap {gap:.2f} (0 is none, 2 the largest)",
)
