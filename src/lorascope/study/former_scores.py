"""Scores that were made under a former identity of their trial, or of scoring itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace

from lorascope.config import Config
from lorascope.files.layout import RECORD, Layout
from lorascope.files.revisions import (
    FORMER_SCORING_CODE,
    SCORING,
    canonical_sha256,
    raised,
    revisions,
)
from lorascope.files.store import read_record, write_record
from lorascope.records import EvaluationRecord, TrialRecord
from lorascope.study.declared import (
    score_settings,
    scored_inputs,
    scores_name,
    unlike_default_scoring,
)
from lorascope.study.intact_scores import require_scores

FORMER_EVALUATE = ("batch_size", "max_new_tokens", "lm_eval_tasks")
"""Fields of conf/evaluate that were part of identities with digests of code."""


def take_over_scores(
    config: Config, layout: Layout, name: str, trial: TrialRecord | None
) -> EvaluationRecord | None:
    """Give scores of a former identity the present one, where their values are known to be those
    of the present code; None where there are none. The caller holds the lock on their folder.

    Args:
        trial: None for a bare base.

    Raises:
        RecordError: a file of theirs is not what was scored.
    """
    settings = score_settings(config, layout, trial)
    identity, target = canonical_sha256(settings), layout.evaluations(config.quant.name) / name
    former = trial.taken_over if trial else None
    folders = [target, *([target.with_name(scores_name(config, former.trial))] if former else [])]
    there = [folder for folder in folders if (folder / RECORD).is_file()]
    if not there or (trial and not former):
        return None
    folder, record = there[0], read_record(there[0], EvaluationRecord)
    accepted = set(_former_identities(config, layout, trial))
    current = record.identity == identity
    if (current and folder == target) or not (current or record.identity in accepted):
        return None
    require_scores(record, folder)
    if not current:
        record = replace(
            record, name=name, identity=identity, trial_identity=trial.identity if trial else None
        )
        write_record(folder, record)
    if folder != target:
        os.rename(folder, target)
    return record


def _former_identities(config: Config, layout: Layout, trial: TrialRecord | None) -> Iterator[str]:
    """Of scores that are known to have the values of the present code."""
    former = trial.taken_over.identity if trial and trial.taken_over else None
    settings = score_settings(config, layout, trial)
    yield canonical_sha256({**settings, "trial": former})
    asked = asdict(config.evaluate)
    later = unlike_default_scoring(config.evaluate).keys() - {*FORMER_EVALUATE}
    lately = {"batches", "served"} & settings.keys()
    if later or lately or raised(revisions(SCORING, config.quant.compute)):
        return
    for code in FORMER_SCORING_CODE.values():
        content = {
            "inputs": scored_inputs(config, layout),
            "trial": former,
            "evaluate": {name: asked[name] for name in FORMER_EVALUATE},
            "code": list(code),
        }
        yield canonical_sha256(content)
        adapter = trial.result.adapter_sha256 if trial and trial.result else None
        yield canonical_sha256({**content, "adapter": adapter})
