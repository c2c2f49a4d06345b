"""adopt: show which trials of a former identity pass for declared ones, and take them over."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.files.locks import locked_folder
from lorascope.files.revisions import code_name
from lorascope.files.store import read_record
from lorascope.records import TrialRecord
from lorascope.study.adoption import Predecessor, foreseen, predecessors, take_over
from lorascope.study.declared import base_name, declare_trial, scores_name
from lorascope.study.former_scores import take_over_scores
from lorascope.study.grid import with_overrides
from lorascope.study.intact import unprepared
from lorascope.study.params import declared_overrides

YES, ASSUME = "--yes", "--assume-equal"


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Show what there is to take over for the declared grid; take it over where --yes is among
    `flags`.

    Raises:
        LorascopeError: base or data are not prepared, or trials were left that only somebody's
            word can make the declared ones.
    """
    composed_from = with_overrides(declared_overrides(layout), overrides)
    for lacking in unprepared(list(configs), layout, composed_from):
        raise LorascopeError(
            f"adopt: trials have no names yet: {lacking.problem} Run `{lacking.command}` first."
        )
    found = predecessors(declare_trial(config, layout) for config in configs)
    going = [one for one in found if one.passes or (ASSUME in flags and not one.differences)]
    for one in going:
        word = "" if one.passes else ", on your word"
        code = code_name(one.record.settings)
        print(f"{one.folder.name} -> {one.declared.name} (trained by {code}{word})")
    left = foreseen([one for one in found if one not in going])
    if YES in flags:
        _take_over_all(going, configs, layout)
    elif going:
        again = shlex.join(["lorascope", "adopt", *overrides, *flags, YES])
        print(f"Nothing was changed. `{again}` takes over the {len(going)} listed.")
    elif not left:
        print("Nothing to take over: no trial that the grid lacks was trained under another name.")
    if left:
        raise LorascopeError("\n".join(["adopt leaves:", *(f"  {line}" for line in left)]))


def _take_over_all(going: Sequence[Predecessor], configs: Sequence[Config], layout: Layout) -> None:
    for one in going:
        take_over(one, layout)
    bases = {config.quant.name: config for config in configs}.values()
    subjects: list[tuple[Config, str, TrialRecord | None]] = [
        (config, base_name(config, layout), None) for config in bases
    ]
    # Of trials that were taken over, now or before.
    for trial in (declare_trial(config, layout) for config in configs):
        if trial.is_recorded:
            record = read_record(trial.folder, TrialRecord)
            subjects.append((trial.config, scores_name(trial.config, trial.name), record))
    scored = 0
    for config, name, of in subjects:
        with locked_folder(layout.evaluations(config.quant.name) / name, layout):
            scored += take_over_scores(config, layout, name, of) is not None
    print(f"Taken over: {len(going)} trials, and {scored} scores of trials and bare bases.")
