"""Which trial a name means, and the one reason why it cannot be asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import Layout
from lorascope.files.store import read_record, write_record
from lorascope.records import Status, TrialRecord
from lorascope.study.named_trial import find_named


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nf4-r0009-a0016-s0", r"no trial is called so. Did you mean nf4-r000[28]-"),
        ("bse", r"no trial is called so. Did you mean base\?"),
        ("zzz", r"no trial is called so. `lorascope status`"),
        ("nf4-r0008@int4_sym", "a served form is merged to be scored"),
        ("nf4", r"several are called so: nf4-r0002-\S+, nf4-r0008-\S+. Name one in full"),
        (None, "nothing is shipped here. Name a trial"),
        ("base", "Run `lorascope quantize-base|missing"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_one_reason(
    recorded: Layout, name: str | None, told: str
) -> None:
    with pytest.raises(LorascopeError, match=told):
        find_named(name, [], recorded)


def test_a_trial_that_did_not_complete_has_nothing_to_ask(recorded: Layout) -> None:
    (folder,) = recorded.trials("nf4").glob("nf4-r0008-*")
    trial = read_record(folder, TrialRecord)
    write_record(folder, replace(trial, status=Status.diverged, reason="loss is nan at step 3"))
    with pytest.raises(ConfigError, match=r"no adapter to ask: diverged \(loss is nan at step 3\)"):
        find_named("nf4-r0008", [], recorded)


def test_a_trial_of_another_base_is_not_put_on_this_one(recorded: Layout) -> None:
    (folder,) = recorded.trials("nf4").glob("nf4-r0008-*")
    trial = read_record(folder, TrialRecord)
    write_record(folder, replace(trial, settings={**trial.settings, "base": "0" * 64}))
    with pytest.raises(LorascopeError, match="trained on another base than models/tiny/nf4"):
        find_named(trial.trial, [], recorded)
