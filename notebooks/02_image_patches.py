# %% [markdown]
# # Which patches of a picture count?
#
# Qwen2-VL cuts a picture into patches of 28 × 28 pixels, after scaling it to a pixel budget. Each patch is one token,
# and attention pooling gives it a weight. This notebook lays the weights over the picture, and then takes patches away
# to see what the embedding really owes to them.
#
# The example model is **small**: one layer in the vision tower and one in the language model, trained in under a
# minute on drawn shapes. It has never seen a photograph, nor a line of writing.

# %%
from st_vi import load
from st_vi.recipes.examples.vision_model import example_vision_model

MODEL = None  # or a folder or a name on the hub

model = load(MODEL) if MODEL else example_vision_model()  # the small one is trained here, the first time
prompt = "instr" if "instr" in model.prompts else None

# %% [markdown]
# ## What has the model learned?
#
# One hundred scenes and their captions, none of whose inventories ("one red circle, two purple stars") was in the
# training rows. The right one of a hundred captions, or pictures, is to be found.

# %%
import pandas as pd

from st_vi.data.generated.rows import generated_rows
from st_vi.recipes.vipolyqwen import vipolyqwen_evaluator

held_out = generated_rows("test", 100, seed=0, kinds=["image_to_text", "text_to_image"])
figures = vipolyqwen_evaluator(held_out, write_csv=False)(model)
names = ("recall@1", "recall@10", "chance")
learned = pd.DataFrame({kind: {name: figures[f"{kind}_{name}"] for name in names} for kind in held_out}).T
learned

# %% [markdown]
# ## Pictures, square and oblong
#
# All are drawn by st_vi: scenes with shapes, and Vietnamese text. They are larger than the budget of the model's
# training, 112 × 112 pixels, so that larger budgets show more of them.

# %%
from PIL import Image

from st_vi.data.generated.render import render_text
from st_vi.data.generated.scenes import Scene, Shape, draw

circle = Shape("hình tròn", "đỏ", "to", (0, 0))
star = Shape("ngôi sao", "xanh dương", "to", (2, 2))
scene, other = (
    draw(Scene((circle, star)), size=336),
    draw(Scene((Shape("hình vuông", "vàng", "to", (1, 1)),)), size=336),
)
both = Image.new("RGB", (672, 336))
both.paste(scene)
both.paste(other, (336, 0))
notice = render_text("Quán phở Hương Lúa\nmở cửa từ sáu giờ sáng", seed=3, size=(560, 280), layout="sign")
pictures = {"circle and star": scene, "oblong": both, "writing": notice}

# %% [markdown]
# ## Try it
#
# - **Click** a patch, or draw a **lasso** around several: they are painted in the picture's mean colour, and all is
#   encoded again. A second click brings a patch back; **clear mask** brings back all.
# - The bars compare the cosine with the **query** before and after. *Out of the pool* leaves the patches in the
#   picture, and only their tokens out of the weighted mean: other tokens have looked at them before. *Random patches
#   painted* is the scale: a mask of any kind moves an embedding (the line spans five random masks).
# - **pixel budget**: the same picture in fewer or more patches, all of them below. A picture is never scaled up to it.
# - **text** goes beside the picture: how much of the pool does it take?
# - **colour range** is in shares of the largest weight.

# %%
from st_vi.viz.widgets.patch_explorer import PatchExplorer

explorer = PatchExplorer(
    model,
    pictures,
    query="Trong ảnh có một hình tròn đỏ và một ngôi sao xanh dương.",
    prompt_name=prompt,
    budgets=[56 * 56, 84 * 84, 112 * 112, 224 * 224],
)
explorer

# %% [markdown]
# ## The same as numbers
#
# Mask every patch alone: does the one with the largest weight also move the similarity most? The rank correlation is
# over the patches of one picture: 1 means that the weights name what the similarity needs, 0 that they say nothing
# about it. **Attention is not an explanation**: look at the sign, too. With the example model, painting a patch with a
# large weight may even bring the picture closer to its own caption.

# %%
from scipy.stats import spearmanr

from st_vi.inspection.patch_masks import mask_patches
from st_vi.inspection.patches import view_patches

query = model.encode(explorer.query.value, convert_to_tensor=True)
view = view_patches(model, scene, prompt_name=prompt)
rows, columns = view.maps[0].shape
effects = {
    (row, column): mask_patches(model, scene, [(row, column)], query, prompt_name=prompt, draws=1)
    for row in range(rows)
    for column in range(columns)
}
falls = pd.Series({patch: effect.similarity - effect.painted_similarity for patch, effect in effects.items()})
weights = pd.Series({patch: float(view.maps[0][patch]) for patch in effects})
print(f"rank correlation of weight and change: {spearmanr(weights, falls.abs()).statistic:.2f}")
pd.DataFrame({"weight": weights, "cosine falls by": falls}).sort_values("weight", ascending=False).head(6).round(3)

# %% [markdown]
# ## Pictures against text
#
# One input may hold several pictures and a text. The weights of all its tokens have the sum 1.

# %%
from st_vi.viz.patches import mass_bars

inputs = {
    "a picture": ([scene], ""),
    "and a question": ([scene], "Trong ảnh có mấy hình tròn?"),
    "two pictures": ([scene, both], "Hai bức ảnh này khác nhau ở đâu?"),
}
views = {name: view_patches(model, *item, prompt_name=prompt) for name, item in inputs.items()}
mass_bars({name: {"image": v.image, "text": v.text, "special tokens": v.special} for name, v in views.items()})
