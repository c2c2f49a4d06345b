"""Model cards: what they say of an adapter, and leave unsaid of its merged forms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from lorascope.comparing.findings import compare
from lorascope.reporting.model_card import Exported, model_card
from lorascope.reporting.pages.recommendation import cost_label
from tests.study_factory import Trial, make_study

STUDY = make_study(
    [Trial("fp16"), *(Trial("nf4", seed=seed, accuracy=0.89) for seed in range(3))],
    base_accuracy=0.2,
)
FINDINGS = compare(STUDY)
ADAPTER = Exported(
    form="adapter", base="me/base", base_revision=None, dataset=None, license=None, commit=None,
    checked=("It was compared.",), load=(), served=(), prompt=None,
)  # fmt: skip


def card_of(exported: Exported) -> str:
    trial = next(own for own in STUDY.trials if own.trial == FINDINGS.decision.trial)
    return model_card(trial, STUDY, FINDINGS, exported)


@pytest.mark.parametrize("form", ["merged", "gguf"])
def test_merged_files_have_neither_scores_nor_costs_of_the_adapter_on_its_base(form: str) -> None:
    text = card_of(ADAPTER)
    assert f"- {cost_label(FINDINGS)}: " in text
    assert "model-index" in yaml.safe_load(text.split("---")[1])
    other = card_of(replace(ADAPTER, form=form))
    assert cost_label(FINDINGS) not in other
    assert "model-index" not in yaml.safe_load(other.split("---")[1])
    assert "judged is the adapter on its base stored as fp16. These files are another form" in other


def test_seeds_are_counted_where_they_are_and_bare_bases_have_none() -> None:
    told = (
        "2 configurations of adapters (1 to 3 seeds a configuration) and 2 bare bases (fp16, nf4)"
    )
    assert told in card_of(ADAPTER)


@pytest.mark.parametrize(("ticks", "fence"), [("", "```"), ("``", "```"), ("````", "`````")])
def test_a_prompt_cannot_close_its_fence(ticks: str, fence: str) -> None:
    prompt = f"Say\n{ticks}\n{{question}}"
    assert f"\n{fence}\n{prompt}\n{fence}\n" in card_of(replace(ADAPTER, prompt=prompt))
