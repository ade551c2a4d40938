"""Texts of the generated scenes, without their images: what the text side has to know before it can be seen."""

from __future__ import annotations

from random import Random

from st_vi.data.generated.scenes import caption, questions, scene


def scene_texts(count: int, seed: int) -> list[str]:
    """Captions, questions and answers of training scenes, about as many of each."""
    random = Random(f"scene texts {seed}")
    texts: list[str] = []
    while len(texts) < count:
        found = scene("train", random.getrandbits(48))
        asked = random.choice(questions(found))
        texts += [caption(found, random.getrandbits(48)), random.choice(asked.wordings), random.choice(asked.options)]
    return texts[:count]
