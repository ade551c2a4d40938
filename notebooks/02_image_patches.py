# %% [markdown]
# # Which patches of an image count?
#
# Qwen2-VL cuts an image into patches of 28 × 28 pixels, after scaling it to a pixel budget. Each patch is one token.
# Attention pooling gives it a weight that knows nothing of any query; only then is the embedding compared with queries.
# So there are two questions: what is pooled, and which patch speaks for *this* query?
#
# `poly-mini` comes with the package: 7 million parameters that learned drawn shapes, lines of printed text and emoji.
# It has hardly seen a photograph.

# %% [markdown]
# <!-- found: Try it; One image proves nothing -->
#
# ![Try it](pictures/02-try-it.png)
#
# ![One image proves nothing](pictures/02-one-image-proves-nothing.png)
#
# What a run has found:
#
# - The right caption or image comes first in 97 of 100 cases; by chance it would in 1.
# - The cosine with the query is 0.60. With the circle painted over it is 0.31, with four random patches painted
#   over 0.66.
# - Painting over shows which shape the query means: the largest fall is on it in 97 % of the scenes, the pool's
#   largest weight in 0 %, a random patch in 18 %.
# - 91 % of the image's weight is on patches with ink; uniform weights would put 33 % there.
# - Beside the 64 patches of an image, the 7 tokens of a question have 71 % of the weight; equal weights would
#   give them 10 %.

# %%
from st_vi import load
from st_vi.inspection.patches import reader

MODEL = None  # or a folder or a name on the hub

model = load(MODEL or "poly-mini")
reader(model)  # an error here if it takes no images
prompt = "instr" if "instr" in model.prompts else None

# %% [markdown]
# ## Does the model know what it sees?
#
# One hundred scenes and their captions. No combination of shapes here ("one red circle, two purple stars") was in the
# training rows. The task is to find the right one of a hundred captions, or images.

# %%
import pandas as pd

from st_vi.data.generated.rows import generated_rows
from st_vi.recipes.vipolyqwen import vipolyqwen_evaluator

held_out = generated_rows("test", 100, seed=0, kinds=["image_to_text", "text_to_image"])
figures = vipolyqwen_evaluator(held_out, write_csv=False)(model)
names = ("recall@1", "recall@10", "chance")
learned = pd.DataFrame({kind: {name: figures[f"{kind}_{name}"] for name in names} for kind in held_out}).T
found, chance = (100 * learned[name].mean() for name in ("recall@1", "chance"))
print(f"The right caption or image comes first in {found:.0f} of 100 cases; by chance it would in {chance:.0f}.")
learned

# %% [markdown]
# ## Try it
#
# - **Colours**: the weight in the pool; the *cosine with the query* of each patch, if it were the only one pooled; or
#   how far the *cosine falls* when the patch is painted over. Name another shape in the **query**: the weights stay,
#   the other two move.
# - **Click** a patch, or draw a **lasso** around several: they are painted in the image's mean colour, and the image is
#   encoded again. A second click brings a patch back; **clear mask** brings back all.
# - The bars compare the cosine with the **query** before and after. *Out of the pool* leaves the patches in the
#   image, and only their tokens out of the weighted mean: other tokens have looked at them before. *Random patches
#   painted* is the control: a mask of any kind moves an embedding (the line spans five random masks).
# - **pixel budget**: the same image in fewer or more patches, all of them below. An image is never scaled up to it.
#   The model learned scenes in 16 patches; in 64 it is on unknown ground.
# - **text** goes beside the image: how much of the pool's weight does it take?

# %%
from random import Random

from PIL import Image

from st_vi.data.generated.lines import draw_lines
from st_vi.data.generated.scenes import Scene, Shape, draw
from st_vi.inspection.patch_masks import mask_patches
from st_vi.inspection.patches import pixel_budget
from st_vi.viz.widgets.patch_explorer import PatchExplorer

circle, star = Shape("hình tròn", "đỏ", "to", (0, 0)), Shape("ngôi sao", "xanh dương", "to", (2, 2))
scene = draw(Scene((circle, star, Shape("hình vuông", "vàng", "nhỏ", (0, 2)))), size=336)
both = Image.new("RGB", (672, 336))
both.paste(scene)
both.paste(draw(Scene((Shape("hình tam giác", "tím", "to", (1, 1)),)), size=336), (336, 0))
line = Image.fromarray(draw_lines("Quán phở mở cửa từ sáu giờ sáng", Random(3), columns=11).pixels)
explorer = PatchExplorer(
    model,
    {"three shapes": scene, "oblong": both, "writing": line},
    query="Trong ảnh có một hình tròn đỏ.",
    prompt_name=prompt,
    budgets=[56 * 56, 84 * 84, 112 * 112, 224 * 224],
    budget=112 * 112,
)
explorer.colours.value = "fall"
circle_patches = [(row, column) for row in (0, 1) for column in (0, 1)]
with pixel_budget(model, 112 * 112):
    query = model.encode(explorer.query.value, convert_to_tensor=True)
    effect = mask_patches(model, scene, circle_patches, query, prompt_name=prompt)
by_chance = float(effect.random_similarities.mean())
print(
    f"The cosine with the query is {effect.similarity:.2f}. With the circle painted over it is "
    f"{effect.painted_similarity:.2f}, with four random patches painted over {by_chance:.2f}."
)
explorer

# %% [markdown]
# ## One image proves nothing
#
# Thirty scenes of three different shapes, and a query that names one of them. On how many does the largest value of
# each map lie on the named shape? The control is a random patch: the share of the patches that show the shape.

# %%
import plotly.graph_objects as go

from st_vi.data.generated.scenes import scene as scene_of
from st_vi.data.generated.scenes import shape_patches
from st_vi.inspection.query_maps import query_map
from st_vi.viz import use_stills
from st_vi.viz.theme import COLOURS, styled

use_stills()  # beside each figure its picture, for viewers that run no scripts
scenes = (scene_of("test", seed) for seed in range(600))
three = [found for found in scenes if len(found.shapes) == len(found.groups) == 3][:30]
hits = {"cosine falls by": [], "cosine with the query": [], "weight": [], "random patch": []}
for number, found in enumerate(three):
    named = found.shapes[number % 3]
    query = model.encode(f"Trong ảnh có một {named.name}.", convert_to_tensor=True)
    maps = query_map(model, draw(found), query)
    rows, columns = maps.fall.shape
    on_shape = shape_patches(found, named, rows, columns).flatten()
    for name, values in zip(hits, (maps.fall, maps.similarity, maps.weights), strict=False):
        hits[name].append(on_shape[int(values.argmax())])
    hits["random patch"].append(on_shape.mean())
shares = pd.Series({name: 100 * sum(each) / len(each) for name, each in hits.items()})
print(
    f"Painting over shows which shape the query means: the largest fall is on it in {shares['cosine falls by']:.0f} % "
    f"of the scenes, the pool's largest weight in {shares['weight']:.0f} %, a random patch "
    f"in {shares['random patch']:.0f} %."
)
bars = go.Figure(go.Bar(y=shares.index, x=shares, orientation="h", marker_color=[*COLOURS[:3], "#b0b0b0"]))
bars.update_xaxes(range=[0, 100], title="% of the scenes")
bars.update_yaxes(autorange="reversed", automargin=True)
styled(bars, "The cosine knows the query; the pool does not", height=260)

# %% [markdown]
# ## What the pool does look at
#
# Lines of text in the upper half of an image whose lower half is empty. How much of the image's weight lies on
# patches with ink? If the weights were uniform, it would be the share of such patches.

# %%
import numpy as np

from st_vi.data import sample_nli
from st_vi.inspection.patches import view_patches

on_ink, uniform = [], []
for number, sentence in enumerate(sample_nli("test")["hypothesis"][:20]):
    drawn = draw_lines(" ".join(sentence.split()[:7]), Random(number), columns=14, noise=0.0)
    empty = np.broadcast_to(drawn.pixels[:1, :1], drawn.pixels.shape)
    weights = view_patches(model, Image.fromarray(np.concatenate([drawn.pixels, empty]))).maps[0].flatten().numpy()
    ink = np.concatenate([drawn.coverage().sum(axis=1) > 0, np.zeros(len(weights) // 2, dtype=bool)])
    on_ink.append(weights[ink].sum() / weights.sum())
    uniform.append(ink.mean())
print(
    f"{100 * np.mean(on_ink):.0f} % of the image's weight is on patches with ink; "
    f"uniform weights would put {100 * np.mean(uniform):.0f} % there."
)

# %% [markdown]
# ## Images against text
#
# One input may hold several images and a text. The weights of all its tokens add up to 1. How much of that goes to a
# question beside an image? With equal weights it would be its share of the tokens.

# %%
from st_vi.viz.patches import mass_bars

question = "Trong ảnh có mấy hình tròn?"
inputs = {
    "an image": ([scene], ""),
    "and a question": ([scene], question),
    "two images": ([scene, both], "Hai bức ảnh này khác nhau ở đâu?"),
}
views = {name: view_patches(model, *item, prompt_name=prompt) for name, item in inputs.items()}
view = views["and a question"]
length, patches = len(model.tokenizer(question, add_special_tokens=False)["input_ids"]), view.maps[0].numel()
taken, even = view.text / (view.text + view.image), length / (length + patches)
print(
    f"Beside the {patches} patches of an image, the {length} tokens of a question have {100 * taken:.0f} % of the "
    f"weight; equal weights would give them {100 * even:.0f} %."
)
mass_bars({name: {"image": v.image, "text": v.text, "special tokens": v.special} for name, v in views.items()})
