"""Trials that a settling trains in advance, and that end with an error of their own."""

from __future__ import annotations

import pytest

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.stages.settle import train_and_score
from tests.conftest import compose_one


def test_what_fails_in_advance_ends_no_settling_and_what_was_asked_for_does(
    project: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    good = compose_one(project, "quant=nf4", "seed=71")
    bad = compose_one(project, "quant=int8", "lora.dora=true", "seed=71", "runtime.device=cpu")
    train_and_score([good], project, in_advance=[bad])
    assert "DoRA cannot be trained" in capsys.readouterr().err
    assert len(list(project.trials("nf4").glob("*-s71-*/record.json"))) == 1
    assert len(list(project.evaluations("nf4").glob("*-s71-*/record.json"))) == 1
    with pytest.raises(LorascopeError, match="DoRA cannot be trained"):
        train_and_score([bad], project, in_advance=[good])
