# %% [markdown]
# # The pooling decides the ranking
#
# A retrieval score hides which queries a model answers. Two models with the same backbone and the same recall may
# answer *different* queries, because their poolings make one vector of the same tokens in different ways. This
# notebook puts the rankings of several poolings side by side, finds the queries where they disagree, and asks which
# syllable of the query made the difference.

# %%
MODEL = None  # or a folder or a name on the hub

# %%
from st_vi import load
from st_vi.inspection.flips import repooled
from st_vi.recipes.examples.text_models import example_text_model

if MODEL:
    model = load(MODEL)
    models = {"its own": model, "mean": repooled(model, "mean"), "last token": repooled(model, "lasttoken")}
else:
    models = {pooling: example_text_model(pooling) for pooling in ("attention", "mean", "lasttoken")}
    model = models["attention"]
prompt_name = "text_pair" if "text_pair" in model.prompts else None

# %% [markdown]
# The three example models began with the same weights and were trained on the same rows, each with its own pooling.
# With a model of yours, only the pooling is exchanged: backbone and head stay as they were trained for its own
# pooling, so the other two show how much the ranking hangs on it, not how good they could become.
#
# ## The search
#
# Each held-out premise looks for what follows from it, among all held-out hypotheses: those that follow, those that
# may be true, and those that contradict. Three variants make it harder: queries typed without diacritics, and a corpus
# to which each relevant document is added once more with a negation turned, or with another number.

# %%
from st_vi.data import sample_nli, strip_diacritics, swap_negation, swap_number
from st_vi.inspection.rankings import RetrievalSet

rows = sample_nli("test").select(range(300))  # 100 premises with three hypotheses each
corpus = list(dict.fromkeys(rows["hypothesis"]))
pairs = [(row["premise"], corpus.index(row["hypothesis"])) for row in rows if row["label"] == "entailment"]
queries, relevant = zip(*pairs, strict=True)

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
# - **k** and **margin**: with a margin, only disagreements remain that a little noise would not undo.
# - **only flipped queries**, then choose one in **query**: the figure now shows the documents that come first. Below,
#   the query is encoded without each of its syllables. A frame means: without this one the two poolings agree.
# - **pooling A**, **pooling B**: the bars show recall@k of all poolings, with intervals from a bootstrap over the
#   queries; the line above the figures gives that of the difference, paired by query.
# - **filter**: the variants. With *negation*, does the turned sentence stand above the right one?

# %%
from st_vi.viz.widgets.ranking_explorer import RankingExplorer

explorer = RankingExplorer(models, queries, corpus, relevant, variants, prompt_name=prompt_name)
explorer

# %% [markdown]
# ## How to read it
#
# - Whether one pooling is *better* is a question to the interval of the difference. If it holds 0, these queries do
#   not tell. The flips show that the rankings differ all the same. Two trainings with one pooling and different seeds
#   would flip some queries, too: compare with such a pair before you blame the pooling.
# - A query without a syllable is another query, sometimes one that nobody would ask. A frame shows what the ranking
#   hangs on; why is not answered.
# - The suspected false negatives are for your eyes: a document that all poolings prefer may be right, and the label
#   incomplete. It may also be that all models are poor in the same way.
# - The example models are small and were trained for seconds. That one of them hardly finds anything says nothing
#   about its pooling in a large model.
# - The variants come from simple rules without a parser; some sentences sound stiff, and some turn less than they
#   should.
