"""Plain loops over definitions, and the texts that they run over."""

from __future__ import annotations

import itertools

import torch


def naive_masks(anchors, positives, negatives, same_anchor, mask_duplicates, more_positives=()):
    """Positive, negative and hard masks, one cell at a time, from texts."""
    answers = [positives, *more_positives]
    rows, candidates = len(anchors), [text for column in (*answers, *negatives) for text in column]
    shape = rows, len(candidates)
    positive, negative, hard = (torch.zeros(shape, dtype=torch.bool) for _ in range(3))
    for i in range(rows):
        relatives = {i}
        if same_anchor != "negative":
            relatives |= {j for j in range(rows) if anchors[j] == anchors[i]}
        own_texts = {anchors[i], *(column[i] for column in answers)}
        spared = own_texts | {column[j] for j in relatives for column in answers}
        for c, text in enumerate(candidates):
            is_answer = c < len(answers) * rows  # the first candidates are the positives, in row order
            if is_answer and c % rows == i:
                positive[i, c] = True
            elif is_answer and c % rows in relatives:
                duplicate = mask_duplicates and text in own_texts
                positive[i, c] = same_anchor == "positive" and not duplicate
            elif not (mask_duplicates and text in spared):
                negative[i, c] = True
                hard[i, c] = not is_answer and c % rows == i
    return positive, negative, hard


ANCHORS = ["a", "a", "b", "c", "a", "d"]


POSITIVES = ["p", "q", "p", "a", "p", "r"]


NEGATIVES = [["n", "m", "q", "c", "q", "p"], ["k", "p", "b", "n", "d", "r2"]]


# Further positives: texts of other rows' positives, hard negatives and anchors, and of the own anchor and positive.
MORE = [["q", "u", "b", "m", "v", "r"], ["p", "q", "w", "p", "x", "a"]]


NUMBER = {text: i for i, text in enumerate(sorted({*ANCHORS, *POSITIVES, *itertools.chain(*NEGATIVES, *MORE)}))}


def ids(texts):
    return torch.tensor([NUMBER[text] for text in texts])


def cosine(u, v):
    return (u @ v) / (u.norm() * v.norm())


def naive_direction(queries, candidates, masks, temperature, weight):
    positive, negative, hard = masks
    losses = []
    for i, query in enumerate(queries):
        logits = [cosine(query, c) / temperature + weight * float(hard[i, j]) for j, c in enumerate(candidates)]
        total = sum(logits[j].exp() for j in range(len(candidates)) if positive[i, j] or negative[i, j])
        own = [logits[j] for j in range(len(candidates)) if positive[i, j]]
        if negative[i].any():
            losses.append(-sum((logit.exp() / total).log() for logit in own) / len(own))
        else:
            losses.append(query.sum() * 0)
    return torch.stack(losses)


MAPPINGS = {"affine": lambda c: (c + 1) / 2, "clamp": lambda c: c.clamp(min=0), "identity": lambda c: c}


def naive_rank(row, document):
    return 1 + sum(row[other] >= row[document] for other in range(len(row)) if other != document)


KNOWN = {"anchor_ids": ids(ANCHORS), "candidate_ids": ids(POSITIVES + NEGATIVES[0] + NEGATIVES[1])}


def batch():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, 5, generator=generator, dtype=torch.float64) for shape in ((6,), (6,), (2, 6))]
