"""init: a study in this folder, of a model and rows that a person names."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.config import (
    DataConfig,
    DecideConfig,
    DeviceKind,
    Format,
    ModelConfig,
    QuantConfig,
    Scoring,
    TemplateKind,
    TrainConfig,
)
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.machine.environment import may_use_cuda
from lorascope.machine.libraries import import_uncollected
from lorascope.starting.detected import Detected, detect
from lorascope.starting.first_study import (
    FirstStudy,
    conf_text,
    params_text,
    sensible_modes,
    sensible_ranks,
    sensible_training,
)
from lorascope.starting.folder import (
    add_ignored,
    begin_dvc,
    fixed_texts,
    params_template,
    refuse_overwriting,
    tried,
    write_study,
)
from lorascope.starting.found_rows import FoundRows, find_rows
from lorascope.starting.words import file_settings, settings_of
from lorascope.study.foregone import too_few_items
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides
from lorascope.study.spelling import closest

if TYPE_CHECKING:
    from lorascope.records import DataCard
    from lorascope.starting.found_model import FoundModel, ModelFacts

ASKED = {
    "model": "model (a folder, or owner/name on the hub): ",
    "data": "rows (a file, a folder of train, validation and test, or owner/name on the hub): ",
}
TALKED = (Format.chat, Format.alpaca, Format.question_answer, Format.prompt_completion)
"""Formats whose rows a chat template writes as a conversation."""
LEAST_TOKENS = 32
NO_ROOM = "replies are too long for this model to generate beside their prompts"


def command(
    _: Sequence[object], layout: Layout, flags: Mapping[str, str], words: Sequence[str]
) -> None:
    """Look at model and rows, and write a study of them into the folder.

    Raises:
        LorascopeError: a source is missing or cannot be used, or a file is there already.
    """
    asked = _asked(words)
    overwrite, with_git = "--overwrite" in flags, "--no-scm" not in flags
    if not overwrite:
        refuse_overwriting(layout.root, {**fixed_texts(), "params.yaml": ""})
    own = settings_of("data", DataConfig, words)
    rows, detected = _found_rows(asked["data"], own, layout)
    import_uncollected("lorascope.starting.found_model")
    from lorascope.starting.found_model import facts_of, find_model

    classes = detected.config.classes
    head = {"classes": len(classes), "dropout": 0.0} if classes else {}
    given = {**head, **settings_of("model", ModelConfig, words)}
    model = find_model(asked["model"], given, layout.root)
    facts = facts_of(model, layout.root)
    print(_of_model(model, facts))
    fitted = _fitted(rows, detected, model, facts, own, layout)
    detected = fitted.detected
    print(_of_rows(rows, detected, fitted.card, facts))
    study = _first_study(model, detected.config, facts, fitted.evaluate, layout)
    for sentence in _too_few(fitted, study, layout):
        print(f"  too few: {sentence}")
    texts = _texts(model, rows, detected, study)
    if not overwrite:
        refuse_overwriting(layout.root, texts)
    with tried(texts) as scratch:
        train = expand(scratch, declared_overrides(scratch))[0].train
    written = write_study(layout.root, texts, rows.files)
    if model.files:
        write_study(layout.root, {}, model.files)
        written.append(str(model.config.path))
    add_ignored(layout.root)
    begun = begin_dvc(layout.root, with_git)
    written = [name for name in written if not name.endswith("README.md")]
    print(_of_study(study, train, written, begun))


def _asked(words: Sequence[str]) -> dict[str, str]:
    """What `model=` and `data=` name; on a terminal, a person is asked for what is missing."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key.partition(".")[0] not in ASKED:
            near = closest(key.partition(".")[0], list(ASKED)) if equals else ""
            later = " Ranks, modes and training stand in params.yaml, which it writes."
            raise ConfigError(
                "init", word, "it takes model=, data=, and keys of their files",
                f"Write `lorascope init {_as_words(words)}`; data.format=text sets a key."
                f"{near or later * bool(equals)}",
            )  # fmt: skip
        if key in ASKED:
            found[key] = value.strip()
    for key, question in ASKED.items():
        if not found.get(key) and sys.stdin.isatty():
            found[key] = input(question).strip()
        if not found.get(key):
            raise ConfigError(
                key, "", "nothing is named",
                "Write `lorascope init model=FOLDER data=FILE`, or owner/name for what is on the "
                "hub.",
            )  # fmt: skip
    return found


def _as_words(words: Sequence[str]) -> str:
    """What was typed without keys, with those that it may have meant."""
    bare = [word for word in words if "=" not in word]
    files = [word for word in bare if Path(word).expanduser().is_file()]
    others = [*(word for word in bare if word not in files), "FOLDER"]
    data = [*files, *others[1:-1], "FILE"]
    given = {key: value for key, _, value in (word.partition("=") for word in words)}
    model, rows = given.get("model") or others[0], given.get("data") or data[0]
    return f"model={shlex.quote(model)} data={shlex.quote(rows)}"


def _found_rows(word: str, own: Mapping[str, object], layout: Layout) -> tuple[FoundRows, Detected]:
    """The rows, and their format, unless it was asked for or stands in a packaged file."""
    rows = find_rows(word, own, layout.root)
    detected = detect(rows.rows["train"], rows.config, rows.is_packaged or "format" in own)
    if rows.is_packaged:
        detected = replace(detected, config=rows.config)
    elif kept := {key: own[key] for key in ("scoring", "answer_pattern", "classes") if key in own}:
        config = replace(detected.config, **kept)  # type: ignore[arg-type]
        detected = replace(detected, config=config, why_scored="asked for")
    return rows, detected


@dataclass(frozen=True)
class Fitted:
    """Rows as this model takes them."""

    detected: Detected
    """With a template and a longest sample that fit."""
    card: DataCard
    evaluate: str
    """A file of conf/evaluate whose answers have room."""
    clusters: list[str | None]
    """Of each validation row."""


def _fitted(
    rows: FoundRows, detected: Detected, model: FoundModel, facts: ModelFacts,
    own: Mapping[str, object], layout: Layout,
) -> Fitted:  # fmt: skip
    from lorascope.starting.rendered import rendered

    config = detected.config
    talked = config.format in TALKED and config.template is TemplateKind.plain
    if facts.has_template and talked and "template" not in own and config.repository is None:
        config = replace(config, template=TemplateKind.chat)
    longest = config.max_tokens if "max_tokens" in own else facts.context_tokens
    tried_with = replace(rows.at_source(config), max_tokens=longest)
    arguments = (model.config.name, facts.tokenizer, facts.context_tokens, layout)
    with rendered(tried_with, *arguments) as found:
        card = found.card
        evaluate = found.evaluation(facts.tokenizer, facts.context_tokens, layout)
        clusters = [row.cluster for row in found.rows("validation")]
    if evaluate is None:
        detected, evaluate = replace(detected, why_scored=NO_ROOM), "default"
        config = replace(config, scoring=Scoring.loss, answer_pattern=None)
    most = max(split.length_percentiles_tokens["p100"] for split in card.splits.values())
    if "max_tokens" not in own:
        room = max(LEAST_TOKENS, 1 << (most - 1).bit_length())
        config = replace(config, max_tokens=min(room, facts.context_tokens))
    return Fitted(replace(detected, config=config), card, evaluate, clusters)


def _too_few(fitted: Fitted, study: FirstStudy, layout: Layout) -> Iterator[str]:
    """As `check` will say it."""
    rule: DecideConfig = file_settings(layout.choices("decide")["default"], DecideConfig, {})
    return too_few_items(
        fitted.detected.config, rule.margin_accuracy, fitted.clusters, study.trials - 1
    )


def _first_study(
    model: FoundModel, data: DataConfig, facts: ModelFacts, evaluate: str, layout: Layout
) -> FirstStudy:
    """Ranks, modes and training for this model on this machine."""
    from lorascope.starting.found_model import storable

    files = layout.choices("quant")
    wanted = sensible_modes(facts.parameters, may_use_cuda(DeviceKind.auto))
    modes, why = storable(model, {n: file_settings(files[n], QuantConfig, {}) for n in wanted})
    if why:
        print(f"modes left out: {', '.join(sorted({*wanted} - {*modes}))}: {why}")
    return FirstStudy(
        model.config.name, data.name, tuple(modes), sensible_ranks(facts.smallest_dimension),
        sensible_training(facts.parameters, data.scoring), evaluate,
    )  # fmt: skip


def _texts(
    model: FoundModel, rows: FoundRows, detected: Detected, study: FirstStudy
) -> dict[str, str]:
    """Path -> text of all files that the study begins with."""
    texts = {"params.yaml": params_text(params_template(), study), **fixed_texts()}
    if not model.is_packaged:
        texts[f"conf/model/{model.config.name}.yaml"] = conf_text(model.config, {})
    if not rows.is_packaged:
        why = detected.why_scored
        fits = f"{detected.fitting} of {detected.tried} rows that were tried have this form."
        remarks = {
            "format": f"Columns: {', '.join(map(str, rows.columns))}. {fits}",
            "scoring": f"{why[:1].upper()}{why[1:]}.",
            "classes": "In the order of their numbers; reports call them so.",
            "max_tokens": "Longer samples are dropped and counted, never cut.",
        }
        texts[f"conf/data/{study.data}.yaml"] = conf_text(detected.config, remarks)
    return texts


def _of_model(model: FoundModel, facts: ModelFacts) -> str:
    template = "a chat template" if facts.has_template else "no chat template"
    return (
        f"model {model.config.name}: {facts.architecture}, {facts.parameters:,} parameters, reads "
        f"{facts.context_tokens:,} tokens, {template}"
    )


def _of_rows(rows: FoundRows, detected: Detected, card: DataCard, facts: ModelFacts) -> str:
    config, train = detected.config, card.splits["train"]
    lengths = train.length_percentiles_tokens
    splits = ", ".join(f"{one.rows} {split}" for split, one in card.splits.items())
    dropped = ", ".join(f"{n} {reason}" for reason, n in card.dropped_rows.items()) or "none"
    strange = train.unknown_token_share
    unknown = f", {strange:.1%} unknown to the tokenizer" if strange else ""
    misfits = detected.fitting < detected.tried
    fits = f" ({detected.fitting} of {detected.tried} rows tried have it)" if misfits else ""
    unread = f" (not read: {', '.join(detected.unread)})" if detected.unread else ""
    return (
        f"data {config.name}: {rows.count} rows of {', '.join(map(str, rows.columns))}{unread}: "
        f"format {config.format.value}{fits}, template {config.template.value}\n"
        f"  scoring {config.scoring.value}: {detected.why_scored}\n"
        f"  {splits}; a sample has {lengths['p50']} (median) to {lengths['p100']} tokens, "
        f"{train.trained_tokens / train.tokens:.0%} of them trained{unknown}; dropped: {dropped}"
    )


def _of_study(study: FirstStudy, train: TrainConfig, written: Sequence[str], begun: str) -> str:
    length = f"{train.steps} steps" if train.steps else f"epochs={train.epochs:g}, steps"
    return (
        f"study: ranks {', '.join(map(str, study.ranks))} in {', '.join(study.quant)}: "
        f"{study.trials} trials, train={study.train} ({length} of {train.batch_size} rows); for "
        "fewer or shorter ones change rank, quant or train in params.yaml\n"
        f"wrote {', '.join(written)}{f'; {begun}' if begun else ''}"
    )
