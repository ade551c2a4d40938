# %% [markdown]
# # Where does the pool look?
#
# Attention pooling turns the vectors of many tokens into one: a learned vector gives each token a weight, and the
# embedding is made from the weighted mean. This notebook shows the weights of any model with an `AttentionPooling`, and
# then asks the harder question: does the embedding really depend on the tokens with large weights?

# %% [markdown]
# <!-- found: The weights as numbers; Words and function words -->
#
# ![The weights as numbers](pictures/01-the-weights-as-numbers.png)
#
# ![Words and function words](pictures/01-words-and-function-words.png)
#
# What a run has found:
#
# - With these weights, 26 tokens count like 15.7 of equal weight.
# - The heaviest token has 5.4 times its equal share, the lightest 0.13.
# - trained: a function word's token weighs 0.67 times as much as another word's.
# - not trained: a function word's token weighs 0.99 times as much as another word's.
# - Deleting the heaviest syllable moves the embedding 1.9 times as far as deleting one at random.
# - Rank correlation of weight and drift in this sentence: 0.54; without a relation it would be 0.

# %%
from st_vi import load
from st_vi.recipes.examples.text_models import example_text_model

MODEL = None  # or a folder or a name on the hub

model = load(MODEL) if MODEL else example_text_model()  # vi-mini with a new pooling, trained here the first time
model.max_seq_length = min(model.max_seq_length, 128)  # below, a text is encoded again for each of its syllables

# %% [markdown]
# ## The weights as numbers
#
# `pool_texts` encodes as `model.encode` does, and keeps what the pooling saw. `units` puts the sub-word tokens of a
# syllable together. The effective number of tokens is the exponential of the entropy of the weights: that many equal
# weights would be just as spread out. If it is close to the number of tokens, the pooling is nearly a plain mean.

# %%
from dataclasses import replace

import pandas as pd
import plotly.graph_objects as go

from st_vi.inspection.attention import effective_number, pool_texts, units
from st_vi.viz import use_stills, weight_bars
from st_vi.viz.theme import styled

use_stills()  # beside each figure its picture, for viewers that run no scripts
sentence = "Sáng nay Hà Nội mưa rào nên phố Khâm Thiên ngập sâu, nhiều xe chết máy."
prefix = next(filter(None, model.prompts.values()), "")
(view,) = pool_texts(model, [sentence], prompt=prefix)
tokens = units(view, by="token")
times_uniform = [unit.weight * len(tokens) for unit in tokens]

worth = float(effective_number(view.weights))
print(f"With these weights, {len(tokens)} tokens count like {worth:.1f} of equal weight.")
print(f"The heaviest token has {max(times_uniform):.1f} times its equal share, the lightest {min(times_uniform):.2f}.")
figure = weight_bars(
    [replace(unit, weight=unit.weight * len(tokens)) for unit in tokens], "Weights; the line is a plain mean"
)
figure.update_yaxes(title="weight · n")
figure.add_hline(1, line_dash="dash", annotation_text="1/n each", annotation_position="top left")

# %% [markdown]
# ## Words and function words
#
# One sentence proves nothing. Over 200 held-out sentences: how much weight does a token of a function word ("là",
# "của", "thì") get, and how much a token of any other word? A syllable that the tokenizer cuts into pieces has more
# weight simply because it has more tokens, so the weight is counted per token. The control beside it is the same
# encoder with a pooling vector that has not been trained.

# %%
from statistics import fmean

from st_vi.data import sample_nli

FUNCTION_WORDS = """
là và của thì mà có không được bị cho với ở trong trên dưới để đã đang sẽ vẫn cũng nên vì do bởi tại từ đến tới những
các một này kia đó ấy nào gì ra vào lên xuống lại rồi nhưng hay hoặc nếu khi lúc như còn chỉ mới đều cả mọi mỗi cái con
chiếc thế sao về theo bằng hơn nhất rất quá lắm
"""
function_words = set(FUNCTION_WORDS.split())
held_out = list(dict.fromkeys(sample_nli("test")["premise"]))[:200]


def weight_by_kind(model):
    """A token's weight times the number of tokens, its mean by kind of word: 1 is the uniform weight."""
    found = {"words": [], "function words": [], "special tokens": []}
    for view in pool_texts(model, held_out):
        for unit in units(view):
            word = unit.text.lower().strip('.,?!:;"“”()')
            kind = "function words" if word in function_words else "words"
            kind = "special tokens" if unit.kind == "special" else kind
            found[kind].append(unit.weight * len(view.weights) / len(unit.tokens))
    return {kind: fmean(weights) for kind, weights in found.items()}


kinds = {"trained": weight_by_kind(model)}
if MODEL is None:
    kinds["not trained"] = weight_by_kind(example_text_model(trained=False))
ratio = {name: of_kind["function words"] / of_kind["words"] for name, of_kind in kinds.items()}
for name, value in ratio.items():
    print(f"{name}: a function word's token weighs {value:.2f} times as much as another word's.")
figure = go.Figure([go.Bar(x=list(of), y=list(of.values()), name=name) for name, of in kinds.items()])
figure.update_yaxes(title="weight · n")
figure.add_hline(1, line_dash="dash", annotation_text="1/n each", annotation_position="top left")
styled(figure, f"Weight of a token, mean over {len(held_out)} sentences")

# %% [markdown]
# ## A large weight is not yet a reason
#
# A weight says how much of a token's *vector* goes into the mean. That vector already holds something of its
# neighbours, and two tokens may say the same. So each syllable is deleted from the text, and the text is encoded again.
# Leaving the syllable out of the pool alone is cheaper, but answers another question: its neighbours still know of it.

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

# %% [markdown]
# The same over 30 of the held-out sentences: the drift when the syllable with the largest weight is deleted, when the
# one with the smallest is, and the mean over all syllables, which is what deleting one at random would do.

# %%
drifts = {"largest weight": [], "any syllable": [], "smallest weight": []}
for other in pool_texts(model, held_out[:30]):
    parts = sorted((unit for unit in units(other) if unit.kind == "text"), key=lambda unit: unit.weight)
    drift = cosine_drift(other, deletions(model, other, parts)).tolist()
    for name, value in zip(drifts, (drift[-1], fmean(drift), drift[0]), strict=True):
        drifts[name].append(value)
means = {name: fmean(values) for name, values in drifts.items()}

times = means["largest weight"] / means["any syllable"]
print(f"Deleting the heaviest syllable moves the embedding {times:.1f} times as far as deleting one at random.")
styled(go.Figure(go.Bar(x=list(means), y=list(means.values()))), "Drift 1 − cos, by the deleted syllable")

# %% [markdown]
# ## Try it
#
# - **text**: write your own. If it is empty or very long, a notice says so.
# - **prefix** and **prefix in pool**: the prefix also changes the other tokens through the backbone, so taking it out
#   of the pool is not the same as not writing it.
# - **strip diacritics**: "Hà Nội" becomes "Ha Noi". Words that the tokenizer knew fall apart into pieces.
# - **temperature**: softmax(u / T). 1 is the model; small values pick one token, large ones approach a plain mean.
# - **unit** "token" shows sub-words.
# - **delete** a unit, or click its bar: the text is encoded again without it, and the drift 1 − cos of the embedding
#   stands beside that of deleting another unit. Of a long text, the first 64 units can be deleted.

# %%
from st_vi.viz.widgets.pool_explorer import PoolExplorer

agreement = table["weight"].corr(table["drift, deleted from the text"], method="spearman")
print(f"Rank correlation of weight and drift in this sentence: {agreement:.2f}; without a relation it would be 0.")
explorer = PoolExplorer(model, text=sentence)
explorer

# %% [markdown]
# ## What to take from it
#
# - Most weights are near the uniform line: this pooling is a mean that looks away from some tokens. Those are function
#   words, and it has learned to: the control has no such preference.
# - The heaviest syllable of a sentence matters more than the others. That is a tendency over many sentences, not an
#   explanation of a single one. `python -m tests.benchmarks.faithfulness` measures it with intervals; see the page of
#   benchmarks.
# - Only the last layer and the pooling of the example model were trained, on 305 premises. Set `MODEL` to use your own.
