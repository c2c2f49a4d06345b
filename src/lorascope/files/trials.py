"""The trial that a name means, among all that lie here."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

from lorascope.errors import ConfigError, first_names
from lorascope.files.layout import RECORD, Layout
from lorascope.files.store import read_record
from lorascope.records import FORM_MARK, Status, TrialRecord

SHOWN = 3
"""Names that may have been meant."""


def find_trial(
    name: str, layout: Layout, key: str = "trial", also: Sequence[str] = ()
) -> TrialRecord:
    """The completed trial called `name`, whose hash may be left out.

    Args:
        key: what names it, for errors.
        also: what may be named in place of a trial, for errors.

    Raises:
        ConfigError: no trial is called so, several are, or it did not complete.
    """
    if FORM_MARK in name:
        raise ConfigError(
            key, name, "a served form is merged to be scored, and not kept",
            f"Leave out what follows {FORM_MARK}: the adapter answers on its base.",
        )  # fmt: skip
    folders = {p.parent.name: p.parent for p in layout.trials("any").parent.glob(f"*/*/{RECORD}")}
    folders = {one: folder for one, folder in folders.items() if not one.startswith(".")}
    matching = [name] if name in folders else [one for one in folders if one.startswith(name)]
    if len(matching) != 1:
        raise _unclear(key, name, sorted(matching), sorted(folders), also)
    trial = read_record(folders[matching[0]], TrialRecord)
    if trial.status is not Status.completed:
        reason = f" ({trial.reason})" if trial.reason else ""
        raise ConfigError(
            key, name, f"it has no adapter to ask: {trial.status.value}{reason}",
            "`lorascope status` says how to train it again.",
        )  # fmt: skip
    return trial


def _unclear(
    key: str, name: str, matching: list[str], known: list[str], also: Sequence[str]
) -> ConfigError:
    if matching:
        listed = first_names(matching)
        return ConfigError(key, name, f"several are called so: {listed}", "Name one in full.")
    near = get_close_matches(name, [*known, *also], SHOWN, cutoff=0.3)
    remedy = f"Did you mean {' or '.join(near)}?" if near else "`lorascope status` lists them."
    if not near and not known:
        remedy = "None is trained yet: run `lorascope train-lora`, or ask trial=base."
    return ConfigError(key, name, "no trial is called so", remedy)
