# %% [markdown]
# # Where does the pool look?
#
# Attention pooling makes one vector of many tokens: each token gets a weight from a learned vector, and the embedding
# is made of the weighted mean. This notebook shows the weights of any model with an `AttentionPooling`, and then asks
# the harder question: does the embedding depend on what has a large weight?

# %%
from st_vi import load
from st_vi.recipes.examples.text_models import example_text_model

MODEL = None  # or a folder or a name on the hub

model = load(MODEL) if MODEL else example_text_model()  # the small one is trained here, the first time

# %% [markdown]
# ## Try it
#
# - **text**: write your own. An empty or a very long one is answered with a notice.
# - **prefix** and **prefix in pool**: the prefix also changes the other tokens through the backbone, so taking it out
#   of the pool is not the same as not writing it.
# - **strip diacritics**: "Hà Nội" becomes "Ha Noi". Words that the tokenizer knew fall apart into pieces.
# - **temperature**: softmax(u / T). 1 is the model; small values look at one token, large ones make a mean.
# - **unit** "token" shows sub-words.
# - **delete** a unit, or click its bar: the text is encoded again without it, and the drift 1 − cos of the embedding
#   stands beside that of deleting another unit. Of a long text, the first 64 units can be deleted.

# %%
from st_vi.viz.widgets.pool_explorer import PoolExplorer

sentence = "Sáng nay Hà Nội mưa rào nên phố Khâm Thiên ngập sâu, nhiều xe chết máy."
explorer = PoolExplorer(model, text=sentence)
explorer

# %% [markdown]
# ## The weights as numbers
#
# `pool_texts` encodes as `model.encode` does, and keeps what the pooling saw. `units` puts the sub-word tokens of a
# syllable together. The effective number of tokens is the exponential of the entropy of the weights: so many equal
# weights would be as spread out. If it is close to the number of tokens, the pooling is nearly a plain mean.

# %%
import pandas as pd

from st_vi.inspection.attention import effective_number, pool_texts, units

prefix = next(filter(None, model.prompts.values()), "")
(view,) = pool_texts(model, [sentence], prompt=prefix)

summary = {
    "tokens": len(view.weights),
    "effective number of tokens": float(effective_number(view.weights)),
    "share on special tokens": view.share("special"),
    "share on the prefix": view.share("prefix"),
}
pd.Series(summary).round(3)

# %% [markdown]
# ## A large weight is not yet a reason
#
# A weight says how much of a token's *vector* goes into the mean. That vector already holds something of its
# neighbours, and two tokens may say the same. So each syllable is deleted from the text, and the text is encoded again.
# Leaving the syllable out of the pool only is cheaper, and another question: its neighbours still know of it.

# %%
from st_vi.inspection.faithfulness import cosine_drift, deletions, maskings

syllables = [unit for unit in units(view) if unit.kind == "text"]
table = pd.DataFrame(
    {
        "weight": [unit.weight for unit in syllables],
        "drift, deleted from the text": cosine_drift(view, deletions(model, view, syllables)),
        "drift, left out of the pool": cosine_drift(view, maskings(model, view, syllables)),
    },
    index=[unit.text for unit in syllables],
)
table.sort_values("weight", ascending=False).round(3)

# %%
table.corr("spearman").round(2)

# %% [markdown]
# ## What to take from it
#
# - Where the rank correlation of weight and drift is high, the weights tell something about the model. Where it is low,
#   do not read reasons into the colours.
# - One sentence proves nothing. `python -m tests.benchmarks.faithfulness` measures the same over many held-out
#   sentences, with intervals; see the page of benchmarks.
# - The example model is small and has seen a few hundred sentences: it shows how to look, not what a large model does.
