"""The embedded data: what may not leak, what must be balanced, and its tokenizer."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lorascope.bases.tiny.pretraining import (
    PretrainSettings,
    build_tiny_model,
    build_tiny_tokenizer,
    draw_batches,
    encode_rows,
    learning_rate_factor,
    pretrain_tiny,
)
from lorascope.data.biographies import (
    ATTRIBUTES,
    Biographies,
    Row,
    make_biographies,
    vocabulary,
)


@pytest.fixture(scope="module")
def people() -> Biographies:
    return make_biographies(old_people=80, new_people=120, asked_people=40, seed=3)


def all_rows(people: Biographies) -> tuple[Row, ...]:
    return (*people.pretraining, *people.train, *people.validation, *people.test)


def test_same_seed_gives_same_rows_and_another_seed_others(people: Biographies) -> None:
    assert make_biographies(80, 120, 40, 3) == people
    assert make_biographies(80, 120, 40, 4).train != people.train


def test_old_people_stay_when_there_are_more_new_ones(people: Biographies) -> None:
    assert make_biographies(80, 200, 80, 3).pretraining == people.pretraining


def test_rows_are_as_many_as_people_attributes_and_wordings_say(people: Biographies) -> None:
    assert len(people.pretraining) == 80 * 5 * 5
    assert len(people.train) == 120 * 5 * 3
    assert len(people.validation) == len(people.test) == 40 * 5
    assert all(row.completion == f" {row.answer}" for row in all_rows(people))
    assert all(row.person in row.prompt for row in all_rows(people))


def test_no_new_person_is_known_to_the_base(people: Biographies) -> None:
    old = {row.person for row in people.pretraining}
    new = {row.person for row in people.train}
    assert (len(old), len(new)) == (80, 120)
    assert not old & new
    assert not any(name in row.prompt for name in new for row in people.pretraining)


def test_questions_never_stand_in_the_training_text(people: Biographies) -> None:
    trained = {row.prompt for row in (*people.pretraining, *people.train)}
    asked = {row.prompt for row in (*people.validation, *people.test)}
    assert not trained & asked
    assert all(prompt.endswith("?") for prompt in asked)
    assert not any("?" in row.prompt for row in people.train)


def test_validation_and_test_share_neither_person_nor_wording(people: Biographies) -> None:
    def wordings(rows: tuple[Row, ...]) -> set[str]:
        return {row.prompt.replace(row.person, "_") for row in rows}

    assert not {r.person for r in people.validation} & {r.person for r in people.test}
    assert not wordings(people.validation) & wordings(people.test)
    assert len(wordings(people.validation)) == len(wordings(people.test)) == 5


def test_every_question_is_answered_by_the_training_rows(people: Biographies) -> None:
    facts = {(row.person, row.attribute): row.answer for row in people.train}
    for row in (*people.validation, *people.test):
        assert facts[row.person, row.attribute] == row.answer


@pytest.mark.parametrize("split", ["pretraining", "train", "validation", "test"])
def test_each_value_is_equally_frequent_so_that_a_guess_scores_one_in_forty(
    people: Biographies, split: str
) -> None:
    rows = getattr(people, split)
    for attribute in ATTRIBUTES:
        counts = Counter(row.answer for row in rows if row.attribute == attribute.name)
        assert len(counts) == 40
        assert len(set(counts.values())) == 1


def test_no_value_belongs_to_two_attributes() -> None:
    values = [value for attribute in ATTRIBUTES for value in attribute.values]
    assert len(set(values)) == len(values) == 200


@pytest.mark.parametrize(
    ("counts", "named"),
    [((41, 80, 40), "41 people"), ((40, 0, 40), "0 people"), ((40, 40, 40), "80 of 40 people")],
)
def test_counts_that_cannot_be_balanced_are_refused(
    counts: tuple[int, int, int], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        make_biographies(*counts, seed=0)


def test_tokenizer_knows_every_word_and_gives_the_text_back(people: Biographies) -> None:
    tokenizer = build_tiny_tokenizer()
    assert len(vocabulary()) == len(set(vocabulary()))
    for row in all_rows(people):
        text = row.prompt + row.completion
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_prompt_and_completion_tokenise_alike_jointly_and_apart(people: Biographies) -> None:
    tokenizer = build_tiny_tokenizer()
    for row in all_rows(people):
        answer = tokenizer(row.completion)["input_ids"]
        assert len(answer) == 1
        joint = tokenizer(row.prompt + row.completion)["input_ids"]
        assert joint == tokenizer(row.prompt)["input_ids"] + answer


def test_saved_tokenizer_loads_with_the_same_ids_and_a_pad_of_its_own(tmp_path: Path) -> None:
    tokenizer = build_tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "Where was Anna Bell born? Whitby"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert len({loaded.pad_token_id, loaded.eos_token_id, loaded.unk_token_id}) == 3


def test_only_answer_and_end_are_trained(people: Biographies) -> None:
    tokenizer = build_tiny_tokenizer()
    row = people.test[0]
    _, labels = encode_rows([row, people.train[0]], tokenizer)
    trained = labels[0][labels[0] != -100]
    assert tokenizer.decode(trained[:1]) == row.answer
    assert trained[1:].tolist() == [tokenizer.eos_token_id]


def test_every_matrix_of_the_base_is_a_multiple_of_the_nf4_block() -> None:
    model = build_tiny_model()
    shapes = [p.shape for p in model.parameters() if p.ndim == 2]
    assert all(size % 64 == 0 for shape in shapes for size in shape)


def test_batches_start_with_the_first_people_and_then_reach_every_row() -> None:
    settings = PretrainSettings(
        old_people=80, first_people=40, first_people_steps=3, steps=9, batch_rows=32
    )
    batches = list(draw_batches(160, settings))
    assert len(batches) == 9
    assert all(len(batch) == 32 for batch in batches)
    assert int(torch.cat(batches[:3]).max()) < 80
    assert set(torch.cat(batches[3:8]).tolist()) == set(range(160))


def test_learning_rate_rises_to_one_and_falls_to_half_midway() -> None:
    settings = PretrainSettings(steps=110, warmup_steps=10)
    factors = [learning_rate_factor(step, settings) for step in range(110)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1.0
    assert factors[60] == pytest.approx(0.5)
    assert 0 < factors[109] < 0.001


def test_pretraining_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    settings = PretrainSettings(old_people=40, steps=3, batch_rows=16)
    seen: list[int] = []
    for folder in ("first", "second"):
        result = pretrain_tiny(settings, tmp_path / folder, lambda step, _, __: seen.append(step))
        assert result.steps == 3
    assert seen == [1, 2, 3, 1, 2, 3]
    first, second = (tmp_path / name / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
