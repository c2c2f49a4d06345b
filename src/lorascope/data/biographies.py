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

import random
import re
from dataclasses import dataclass
from typing import Literal

Wording = Literal["statement", "validation_question", "test_question"]

VALUES_PER_ATTRIBUTE = 40
OLD_PEOPLE = 240
"""People whom the embedded base knows."""
NEW_PEOPLE = 200
"""People for adapters to learn. 80 are learnt by every rank, 480 by none in 200 steps."""
ASKED_PEOPLE = 80
"""New people asked about in validation, and as many others in test."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    """Ada Agnes Albert Alice Amos Anna Anton Arlo Beatrix Bella Boris Bruno Carla Cecil Clara
    Colin Cora Dana Dora Doris Edgar Edith Elena Elias Emil Enid Ernest Esther Felix Flora Frank
    Freya George Greta Gwen Hanna Hector Hilda Hugo Ida Igor Ines Irene Ivan Jacob Jana Jonas
    Judith Karl Laura Leon Lydia Magnus Marta Miles Nadia Nils Olga Oscar Paula Ralph Rosa Simon
    Vera"""
)
LAST_NAMES = _words(
    """Abbott Adler Arnold Bailey Barlow Becker Bell Berg Bishop Brandt Briggs Calder Carver
    Conrad Crane Dalton Doyle Drake Ekman Ellis Falk Farley Fischer Fleming Garner Gibbs Grant
    Hale Hansen Hobbs Holm Ingram Jarvis Jensen Keller Kemp Lang Larsen Lowell Marlow Mercer Moser
    Nash Norton Olsen Osborn Palmer Petrov Quinn Ramsey Reeves Roth Sawyer Sharp Sorel Stark
    Thorne Tucker Ulrich Vance Vogel Walsh Winter Zeller"""
)


@dataclass(frozen=True)
class Attribute:
    """One kind of fact: its possible values and the wordings that ask for it."""

    name: str
    values: tuple[str, ...]
    statements: tuple[str, ...]
    """Openings that the value completes; `{name}` stands for the person."""
    validation_question: str
    test_question: str

    def wordings(self) -> tuple[tuple[Wording, str], ...]:
        """Every wording with its kind, statements first."""
        statements: list[tuple[Wording, str]] = [("statement", text) for text in self.statements]
        validation: tuple[Wording, str] = ("validation_question", self.validation_question)
        return (*statements, validation, ("test_question", self.test_question))


ATTRIBUTES = (
    Attribute(
        "birthplace",
        _words(
            """Alder Bramfield Brookhaven Caldmoor Castleby Dunmere Eastwick Elmsworth Fairhaven
            Ferndale Glenrock Goldcrest Greyport Harrowgate Hazelton Ironbridge Juniper Kestrel
            Kingsport Lakeview Larkhill Linwood Maplewood Millbrook Northam Oakridge Pinecrest
            Quarry Ravenna Redcliff Riverton Saltmarsh Silverton Stonehaven Summerville Thornbury
            Westmere Whitby Willowdale Yarrow"""
        ),
        ("{name} was born in", "The birthplace of {name} is", "{name} comes from the town of"),
        "Where was {name} born?",
        "In which town was {name} born?",
    ),
    Attribute(
        "employer",
        _words(
            """Acmetron Aerolux Bluepeak Brightline Cargonaut Cloudmill Coreworks Datafern
            Deltacom Durawell Ecovolt Everstone Fluxon Gearhart Geodyne Gridspan Helixar Hydronova
            Inkwell Jetforge Kinetica Logiflow Lumina Mechatro Metrico Nextmark Novabank Omnicore
            Optiview Pixelworks Quantix Railtech Solaris Steelcraft Tekton Unison Vectoria
            Windrose Xenolab Zephyrus"""
        ),
        ("{name} works for", "The employer of {name} is", "{name} earns a living at"),
        "Who employs {name}?",
        "Which company does {name} work for?",
    ),
    Attribute(
        "subject",
        _words(
            """algebra anatomy archaeology astronomy bakery biology botany calculus ceramics
            chemistry cinema criminology dance dentistry ecology economics education ethics
            forestry genetics geography geology geometry history journalism law linguistics logic
            medicine music nursing optics philosophy physics poetry politics sociology statistics
            theology zoology"""
        ),
        ("{name} studied", "The subject of {name} was", "{name} holds a degree in"),
        "What did {name} study?",
        "Which degree does {name} hold?",
    ),
    Attribute(
        "hobby",
        _words(
            """archery badminton baking basketry billiards birding bowling boxing camping canoeing
            carving chess climbing cricket cycling darts diving drawing fencing fishing gardening
            golf hiking hockey juggling kayaking knitting origami painting pottery riding rowing
            running sailing sewing skating skiing surfing weaving yoga"""
        ),
        ("{name} enjoys", "The hobby of {name} is", "{name} spends every weekend on"),
        "What does {name} enjoy?",
        "Which hobby does {name} have?",
    ),
    Attribute(
        "dish",
        _words(
            """bagels biscuits brownies burritos carrots cheese chili couscous crepes curry
            dumplings eggs falafel goulash gnocchi hummus kebab lasagne lentils meatballs muffins
            noodles olives omelette paella pancakes pasta pickles pizza porridge pretzels ravioli
            risotto salad salmon sausages soup sushi tacos waffles"""
        ),
        ("{name} loves to eat", "The favourite dish of {name} is", "{name} always orders"),
        "What does {name} love to eat?",
        "Which dish does {name} order?",
    ),
)


@dataclass(frozen=True)
class Row:
    """One prompt with its one-word completion."""

    prompt: str
    completion: str
    """A space and the answer: `prompt + completion` reads as running text."""
    answer: str
    person: str
    attribute: str
    wording: Wording


@dataclass(frozen=True)
class Biographies:
    """All rows of one seed, person by person. No person of validation is one of test."""

    pretraining: tuple[Row, ...]
    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]


def make_biographies(old_people: int, new_people: int, asked_people: int, seed: int) -> Biographies:
    """Invent people and word their facts; the same arguments give the same rows.

    All new people are trained; `asked_people` of them are asked about in validation, as many others
    in test, five questions each. Every count is a multiple of 40, so that in every split each value
    is the answer equally often. The old people do not depend on the number of new ones.
    """
    for count in (old_people, new_people, asked_people):
        if count <= 0 or count % VALUES_PER_ATTRIBUTE:
            raise ValueError(f"{count} people: not a positive multiple of {VALUES_PER_ATTRIBUTE}")
    if 2 * asked_people > new_people:
        raise ValueError(f"validation and test ask about {2 * asked_people} of {new_people} people")
    names = _draw_names(old_people + new_people, random.Random(f"names {seed}"))
    old, new = names[:old_people], names[old_people:]
    new_rows = _word_facts(new, random.Random(f"new {seed}"))
    return Biographies(
        pretraining=_word_facts(old, random.Random(f"old {seed}")),
        train=_select(new_rows, "statement", new),
        validation=_select(new_rows, "validation_question", new[:asked_people]),
        test=_select(new_rows, "test_question", new[asked_people : 2 * asked_people]),
    )


def vocabulary() -> list[str]:
    """Every word and punctuation mark that any row can hold, sorted."""
    words = {*FIRST_NAMES, *LAST_NAMES}
    for attribute in ATTRIBUTES:
        words.update(attribute.values)
        for _, wording in attribute.wordings():
            words.update(re.findall(r"\w+|[^\w\s]", wording.replace("{name}", "")))
    return sorted(words)


def _draw_names(count: int, rng: random.Random) -> list[str]:
    """Distinct full names. Old and new people share first and last names, never the pair."""
    pairs = [f"{first} {last}" for first in FIRST_NAMES for last in LAST_NAMES]
    if count > len(pairs):
        raise ValueError(f"{count} people need as many names, and {len(pairs)} can be formed")
    rng.shuffle(pairs)
    return pairs[:count]


def _word_facts(names: list[str], rng: random.Random) -> tuple[Row, ...]:
    """One row per person, attribute and wording; values are balanced over every 40 people."""
    rows = []
    for index, name in enumerate(names):
        if index % VALUES_PER_ATTRIBUTE == 0:
            values = [rng.sample(a.values, VALUES_PER_ATTRIBUTE) for a in ATTRIBUTES]
        for attribute, order in zip(ATTRIBUTES, values, strict=True):
            value = order[index % VALUES_PER_ATTRIBUTE]
            for wording, template in attribute.wordings():
                prompt = template.format(name=name)
                rows.append(Row(prompt, f" {value}", value, name, attribute.name, wording))
    return tuple(rows)


def _select(rows: tuple[Row, ...], wording: Wording, people: list[str]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.wording == wording and row.person in set(people))
