"""Synthetic biographies: invented people, five facts each, every fact in several wordings.

After Allen-Zhu and Li, "Physics of Language Models: Part 3.1" (arXiv 2309.14316): a model that has
read *old* people in every wording can answer questions about *new* people of whom it was told
statements only, because naming a fact and asking for it use the same stored knowledge.

* pre-training: old people, all wordings.
* LoRA training: new people, statements only.
* validation and test: two disjoint groups of them, each asked in a question wording of its own.

Each of the 40 values of an attribute occurs equally often, so that a blind guess scores 1 / 40.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files

VALUES_PER_ATTRIBUTE = 40
OLD_PEOPLE = 240
"""People whom the embedded base knows."""
NEW_PEOPLE = 200
"""People for adapters to learn. 80 are learnt by every rank, 480 by none in 200 steps."""
ASKED_PEOPLE = 80
"""New people asked about in validation, and as many others in test."""


@dataclass(frozen=True)
class Attribute:
    """One kind of fact: its possible values and the wordings that ask for it."""

    name: str
    values: list[str]
    statements: list[str]
    """Openings that the value completes; `{name}` stands for the person."""
    validation_question: str
    test_question: str

    @property
    def wordings(self) -> list[str]:
        """Every wording, statements first."""
        return [*self.statements, self.validation_question, self.test_question]


_WORDS = json.loads((files("lorascope.data") / "biographies.json").read_text("utf-8"))
FIRST_NAMES, LAST_NAMES = _WORDS["first_names"], _WORDS["last_names"]
ATTRIBUTES = tuple(Attribute(**attribute) for attribute in _WORDS["attributes"])


@dataclass(frozen=True)
class Row:
    """One prompt with its one-word completion."""

    prompt: str
    completion: str
    """A space and the answer: `prompt + completion` reads as running text."""
    answer: str
    person: str
    attribute: str


@dataclass(frozen=True)
class Biographies:
    """All rows of one seed, person by person. No person of validation is one of test."""

    pretraining: tuple[Row, ...]
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]


def make_biographies(
    old_people: int = OLD_PEOPLE,
    new_people: int = NEW_PEOPLE,
    asked_people: int = ASKED_PEOPLE,
    seed: int = 0,
) -> Biographies:
    """Invent people and word their facts; the same arguments give the same rows.

    `asked_people` of the new ones are asked about in validation, as many others in test. Every
    count is a multiple of 40. The old people do not depend on the number of new ones.
    """
    for count in (old_people, new_people, asked_people):
        if count <= 0 or count % VALUES_PER_ATTRIBUTE:
            raise ValueError(f"{count} people: not a positive multiple of {VALUES_PER_ATTRIBUTE}")
    if 2 * asked_people > new_people:
        raise ValueError(f"validation and test ask about {2 * asked_people} of {new_people} people")
    names = _draw_names(old_people + new_people, random.Random(f"names {seed}"))
    old = _draw_facts(names[:old_people], random.Random(f"old {seed}"))
    new = _draw_facts(names[old_people:], random.Random(f"new {seed}"))
    asked = asked_people * len(ATTRIBUTES)
    return Biographies(
        pretraining=_word(old, lambda attribute: attribute.wordings),
        train=_word(new, lambda attribute: attribute.statements),
        validation=_word(new[:asked], lambda attribute: [attribute.validation_question]),
        test=_word(new[asked : 2 * asked], lambda attribute: [attribute.test_question]),
    )


def vocabulary() -> list[str]:
    """Every word and punctuation mark that any row can hold, sorted."""
    words = {*FIRST_NAMES, *LAST_NAMES}
    for attribute in ATTRIBUTES:
        words.update(attribute.values)
        for wording in attribute.wordings:
            words.update(re.findall(r"\w+|[^\w\s]", wording.replace("{name}", "")))
    return sorted(words)


def _draw_names(count: int, rng: random.Random) -> list[str]:
    """Distinct full names. Old and new people share first and last names, never the pair."""
    pairs = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    if count > len(pairs):
        raise ValueError(f"{count} people need as many names, and {len(pairs)} can be formed")
    rng.shuffle(pairs)
    return pairs[:count]


Fact = tuple[str, Attribute, str]
"""A person's name, an attribute, and its value."""


def _draw_facts(names: list[str], rng: random.Random) -> list[Fact]:
    """A fact for each person and attribute; values are balanced over every 40 people."""
    facts = []
    for start in range(0, len(names), VALUES_PER_ATTRIBUTE):
        values = [rng.sample(a.values, VALUES_PER_ATTRIBUTE) for a in ATTRIBUTES]
        people = names[start : start + VALUES_PER_ATTRIBUTE]
        for name, *own in zip(people, *values, strict=True):
            facts += [(name, a, value) for a, value in zip(ATTRIBUTES, own, strict=True)]
    return facts


def _word(facts: Sequence[Fact], wordings: Callable[[Attribute], list[str]]) -> tuple[Row, ...]:
    return tuple(
        Row(wording.format(name=name), f" {value}", value, name, attribute.name)
        for name, attribute, value in facts
        for wording in wordings(attribute)
    )
