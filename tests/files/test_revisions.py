"""What makes a trial another one: settings, inputs and revisions, but not the text of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import Config, DataConfig
from lorascope.files.revisions import RAISED, SCORING, TRAINING
from lorascope.objectives.padding_free import pays
from lorascope.study.identity import differing_settings, trial_identity, trial_settings
from tests.code_digests import WHOLE, counted, digest_of, digests, recorded
from tests.imports import MODULES

LOSS = "\n\n\n".join(MODULES[name].read_text() for name in sorted(counted()["objectives"]))
"""All code of the loss."""


def settings(**changed: Any) -> dict[str, Any]:
    """Of a trial with short samples and every other setting as by default, and those that are
    given."""
    return {**trial_settings(of_samples(64), "base digest", "data digest"), **changed}


def of_samples(max_tokens: int) -> Config:
    """A trial whose samples have so many tokens at most."""
    return Config(adapter=LoraConfig(), data=DataConfig(max_tokens=max_tokens))


def test_code_that_decides_values_is_as_recorded() -> None:
    now, then = digests(), recorded()
    changed = [room for room in {**then, **now} if now.get(room) != then.get(room)]
    assert not changed, (
        f"{', '.join(changed)} changed: code that decides values. Show that the bits stayed "
        "(the equality tests at both commits: tests/training/test_packing.py and its like), "
        "or raise the room's revision in src/lorascope/files/revisions.py with the reason: trials "
        "of the former revision are then trained again. Either way, record the code as of now: "
        "python -m tests.code_digests"
    )


def test_every_room_that_decides_values_has_a_revision() -> None:
    assert set(digests()) == set(RAISED) == {*TRAINING, *SCORING}


def test_identities_stay_what_they_are() -> None:
    """Whoever changes these digests makes every trial that was ever trained a stranger."""
    assert (
        trial_identity(settings())
        == "0f230a3a4e2d126910f2929cbaf4274a702e4ebad8086341c5ba73ecd7bfe1b3"
    )
    lora = {**settings()["lora"], "rank": 8}
    assert (
        trial_identity(settings(lora=lora))
        == "990d58b597533cf19cca95a18c4bf058a4a719d97d52edc2295312a8e91334a2"
    )


def test_long_samples_on_their_own_have_another_revision() -> None:
    """Up to 64 tokens no batch is computed without padding: such trials are no strangers."""
    by_length = {
        tokens: trial_settings(of_samples(tokens), "base", "data")["revisions"]
        for tokens in (64, 65)
    }
    assert set(by_length[64].values()) == {1}
    assert by_length[65] == {**by_length[64], "training": 3}
    assert not pays(AutoConfig.for_model("llama"), [64] * 7 + [0])


def test_a_moved_file_a_comment_and_a_type_leave_the_digest(tmp_path: Path) -> None:
    place = LOSS.index("\n\n\ndef ")
    (tmp_path / "one.py").write_text(f'"""Other words."""\nimport json\n{LOSS[place:]}# Moved.\n')
    other = re.sub(r"^def (.*) -> .*:$", r"def \1 -> object:", LOSS[:place], flags=re.MULTILINE)
    (tmp_path / "two.py").write_text(other)
    assert digest_of(tmp_path.glob("*.py")) == digests()["objectives"]


def test_a_change_in_the_loss_changes_the_digest(tmp_path: Path) -> None:
    changed = LOSS.replace("    return ", "    return 2 * ", 1)
    assert changed != LOSS
    (tmp_path / "loss.py").write_text(changed)
    assert digest_of([tmp_path / "loss.py"]) != digests()["objectives"]


def test_byte_counters_and_formats_of_data_are_no_code_that_decides_values() -> None:
    modules = {module for own in counted().values() for module in own}
    assert modules > {"lorascope.data.rows", "lorascope.scoring.score", "lorascope.training.loop"}
    assert not modules & {
        "lorascope.quantizers.footprint", "lorascope.meters.phases", "lorascope.data.formats",
        "lorascope.scoring.merging",
    }  # fmt: skip
    assert all(counted()[room] for room in WHOLE)


def test_a_new_setting_and_a_new_room_make_no_new_trial() -> None:
    before = settings()
    train = {name: value for name, value in before["train"].items() if name != "patience"}
    rooms = {room: 1 for room in before["revisions"] if room != "objectives"}
    former = settings(train=train, revisions=rooms)
    assert trial_identity(former) == trial_identity(before)
    assert differing_settings(former, before) == []


@pytest.mark.parametrize(("name", "other"), [("layer_rate_decay", 0.9), ("layer_drop", 0.1)])
def test_an_option_of_training_makes_another_trial_where_it_is_used(
    name: str, other: float
) -> None:
    before = settings()
    former = settings(train={key: own for key, own in before["train"].items() if key != name})
    assert trial_identity(former) == trial_identity(before)
    used = settings(train={**before["train"], name: other})
    assert trial_identity(used) != trial_identity(before)


@pytest.mark.parametrize("change", [{"base": "x"}, {"data": "x"}, {"seed": 1}])
def test_inputs_and_seed_make_another_trial(change: dict[str, Any]) -> None:
    assert trial_identity(settings(**change)) != trial_identity(settings())


def test_a_raised_revision_makes_another_trial() -> None:
    raised = settings(revisions={**settings()["revisions"], "training": 2})
    assert trial_identity(raised) != trial_identity(settings())


def test_differences_are_told_by_key_and_both_values() -> None:
    there = settings(base="other", train={**settings()["train"], "steps": 100})
    told = differing_settings(there, settings())
    assert sorted(told) == ["other base", "train.steps=100, and null is declared"]
