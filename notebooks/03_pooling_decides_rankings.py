# %% [markdown]
# # The pooling decides the ranking
#
# A retrieval score hides which queries a model answers. Two models with the same backbone and the same recall may
# answer *different* queries, because their poolings turn the same tokens into one vector in different ways. This
# notebook puts the rankings of several poolings side by side, finds the queries where they disagree, and asks which
# syllable of the query made the difference.

# %% [markdown]
# <!-- found: Against words -->
#
# ![Against words](pictures/03-against-words.png)
#
# What a run has found:
#
# - mean, attention: 10 of 195 questions find their passage with only one of the two.
# - mean, lasttoken: 27 of 195 questions find their passage with only one of the two.
# - mean, mean, another seed: 1 of 195 questions find their passage with only one of the two.
# - Right passage first, as written: BM25 92%, mean pooling 90%.
# - Without diacritics: TF-IDF falls to 25%, mean pooling to 60%.

# %%
MODEL = None  # or a folder or a name on the hub

# %%
from st_vi import load
from st_vi.inspection.flips import find_flips, repooled
from st_vi.recipes.examples.text_models import example_text_model

prompt_name = None  # or the name of your model's prompt for questions
if MODEL:
    model = load(MODEL)
    models = {"its own": model, "mean": repooled(model, "mean"), "last token": repooled(model, "lasttoken")}
else:
    models = {pooling: example_text_model(pooling) for pooling in ("attention", "mean", "lasttoken")}
    models["mean, another seed"] = example_text_model("mean", seed=1)
    model = models["attention"]

# %% [markdown]
# The example models began with the encoder of `vi-mini` and were trained on the same rows, each with its own pooling.
# The fourth is the second trained once more, with the rows in another order: these two differ only by chance. With a
# model of your own, only the pooling is exchanged: backbone and head stay as they were trained for its own pooling, so
# the other two show how much the ranking depends on it, not how good they could become.
#
# ## The search
#
# Each question looks for the passage that answers it, among all held-out passages. Three variants make it harder:
# questions typed without diacritics, and a corpus to which a second copy of each right passage is added, with a
# negation reversed or with another number.

# %%
from st_vi.data import sample_retrieval, strip_diacritics, swap_negation, swap_number
from st_vi.inspection.rankings import RetrievalSet

rows = sample_retrieval("test")
corpus = list(dict.fromkeys(rows["passage"]))
queries, relevant = rows["question"][:], [corpus.index(passage) for passage in rows["passage"]]

search = RetrievalSet(queries, corpus, relevant)
variants = {
    "diacritics": search.with_queries(strip_diacritics),
    "negation": search.with_distractors(swap_negation),
    "number": search.with_distractors(swap_number),
}

sentence = "Chiếc xe đã chờ ở bến ba ngày."
[change(sentence) for change in (strip_diacritics, swap_negation, swap_number)]

# %% [markdown]
# ## Look around
#
# A line in the left figure is a query; it leads from the rank of its relevant document under pooling A to that under
# B. Coloured lines cross the border of the first *k*: only one of the two poolings finds the document.
#
# - **k** and **margin**: a margin leaves only disagreements that a little noise would not undo.
# - **only flipped queries**, then choose one in **query**: the figure now shows the documents that come first. Below,
#   the query is encoded without each of its syllables. A frame means: without this syllable the two poolings agree.
# - **pooling A**, **pooling B**: the bars show recall@k of all poolings, with intervals from a bootstrap over the
#   queries; the line above the figures gives that of the difference, paired by query.
# - **filter**: the variants. With *negation*, does the reversed sentence rank above the right one?

# %%
from st_vi.inspection.rankings import cosine_matrix, relevant_ranks, top_k_margins
from st_vi.viz.widgets.ranking_explorer import RankingExplorer

explorer = RankingExplorer(models, queries, corpus, relevant, variants, prompt_name=prompt_name, k=1)
cosines = {name: cosine_matrix(*embedded["all"]) for name, embedded in explorer.embedded.items()}
margins = {name: top_k_margins(matrix, relevant, 1) for name, matrix in cosines.items()}
flipped = {}
for name in margins:
    if name != "mean":
        flips = find_flips(margins["mean"], margins[name])
        flipped[name] = len(flips.only_a) + len(flips.only_b)
        print(f"mean, {name}: {flipped[name]} of {len(queries)} questions find their passage with only one of the two.")
explorer

# %% [markdown]
# ## Against words
#
# Does the pooling matter more than anything else? The same questions, answered by words: TF-IDF, and BM25 as
# `python -m st_vi search` has it, which compares a question without diacritics with passages without theirs.

# %%
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from st_vi.encoding.search.words import WordIndex
from st_vi.viz import use_stills
from st_vi.viz.theme import styled

use_stills()  # beside each figure its picture, for viewers that run no scripts
tfidf = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True).fit(corpus)
bm25 = WordIndex(corpus)


def by_words(texts):
    yield "TF-IDF", (tfidf.transform(texts) @ tfidf.transform(corpus).T).toarray()
    yield "BM25", np.stack([bm25.scores(text) for text in texts])


found = {name: {} for name in [*models, "TF-IDF", "BM25"]}
for column, key in {"as written": "all", "without diacritics": "diacritics"}.items():
    asked = explorer.sets[key]
    scores = dict(by_words(asked.queries))
    scores |= {name: cosine_matrix(*embedded[key]).numpy() for name, embedded in explorer.embedded.items()}
    for name, matrix in scores.items():
        ranks = relevant_ranks(torch.as_tensor(matrix), asked.relevant)
        found[name][column] = float((ranks == 1).double().mean())
recall = pd.DataFrame(found).T

written, stripped = recall["as written"], recall["without diacritics"]
print(f"Right passage first, as written: {written.idxmax()} {written.max():.0%}, mean pooling {written['mean']:.0%}.")
print(f"Without diacritics: TF-IDF falls to {stripped['TF-IDF']:.0%}, mean pooling to {stripped['mean']:.0%}.")
figure = go.Figure([go.Bar(x=recall.index, y=recall[column], name=column) for column in recall])
figure.update_yaxes(title="right passage first", tickformat=".0%")
styled(figure, f"{len(queries)} questions, {len(corpus)} passages")

# %%
recall.round(3)

# %% [markdown]
# ## How to read it
#
# - Training one pooling twice flips some questions, too: that is the noise floor. A pooling that flips no more than
#   that has decided nothing. Whether one is *better* is told by the interval of the difference: if it includes 0, these
#   queries cannot tell.
# - Words beat every pooling where question and passage share them and spell them alike, and a model that never saw
#   words without diacritics would fall as far as TF-IDF does. `python -m st_vi search` uses both.
# - A query without a syllable is another query, sometimes one that nobody would ask. A frame shows what the ranking
#   depends on, but not why.
# - The suspected false negatives need your judgement: a document that all poolings prefer may be right, and the label
#   incomplete. It may also be that all models are poor in the same way.
# - The last token of `vi-mini` was never trained to stand for a text; that it does worse here says little about last
#   token pooling in a model that was made for it.
# - The variants come from simple rules without a parser; some sentences sound stiff, and some are only half reversed.
