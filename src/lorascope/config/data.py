"""A dataset, as a file of conf/data says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorascope.config.bounds import (
    BELOW_ONE,
    DAY,
    ONE_OR_MORE,
    SEED,
    SPLIT_SHARE,
    Bound,
    bounded,
    named,
)
from lorascope.config.choices import DataKind, Format, Scoring, TemplateKind

KEEP_ALL = "Set it to null to keep all rows."


@dataclass
class DataConfig:
    """A dataset: its source, layout, rendering, splits and what counts as right."""

    name: str = named("data")
    kind: DataKind = DataKind.local
    format: Format = Format.prompt_completion
    template: TemplateKind = TemplateKind.plain
    system: str | None = None
    """System message given to every conversation that has none."""
    date: str = bounded("2024-07-26", DAY)
    """Date (YYYY-MM-DD) for chat templates that write today's into each prompt: fixed, so that the
    same rows come out on every day."""
    repository: str | None = None
    revision: str | None = None
    subset: str | None = None
    train: str | None = None
    """Local file (json, jsonl, csv, parquet, txt) or, for kind=hub, the split's name."""
    validation: str | None = None
    """File or split, as for train; where empty, a share of train, taken by stable hash."""
    test: str | None = None
    validation_fraction: float = bounded(0.1, SPLIT_SHARE, "0.1 is a good start.")
    test_fraction: float = bounded(0.1, SPLIT_SHARE, "0.1 is a good start.")
    max_tokens: int = bounded(
        1024,
        Bound(lambda tokens: tokens >= 8, "too short for a prompt and an answer"),
        "Set it to the model's context or less.",
    )
    """Longer samples are dropped and counted, never cut inside an answer."""
    max_dropped_fraction: float = bounded(
        0.05,
        Bound(BELOW_ONE.holds, f"{BELOW_ONE.problem}: it is a share of the rows"),
        "0.05 is the default; 0 stops at the first row that is unfit.",
    )
    """Share of a source's rows that may be unfit to train on (empty, malformed): these are left out
    and listed. More are an error, and 0 allows none."""
    max_train_rows: int | None = bounded(None, ONE_OR_MORE, KEEP_ALL)
    max_validation_rows: int | None = bounded(None, ONE_OR_MORE, KEEP_ALL)
    max_test_rows: int | None = bounded(None, ONE_OR_MORE, KEEP_ALL)
    scoring: Scoring = Scoring.loss
    answer_pattern: str | None = None
    """Regular expression with one group that finds the answer in a text, for scoring=answer."""
    train_on_prompt: bool = False
    """Train on prompt tokens too, instead of completions only."""
    classes: list[str] = field(default_factory=list)
    """Names of the classes of format=labelled, in the order of their numbers, which begin at 0."""
    text_column: str = "text"
    """For format=labelled."""
    second_text_column: str | None = None
    """For format=labelled with two texts a row, such as premise and hypothesis."""
    label_column: str = "label"
    """For format=labelled: the class's name, or its number."""
    cluster: str | None = None
    """Column whose equal values mark rows that are not independent (one person, one document):
    intervals then treat them as one draw."""
    group: str | None = None
    """Column that says of what kind a row is (subject, difficulty): the report then has the scores
    of each kind."""
    seed: int = bounded(0, SEED)

    @property
    def kept_splits(self) -> tuple[str, ...]:
        """The splits that `evaluate.forgetting` scores: test where it has rows of its own, else
        all."""
        has_test = self.test is not None or self.kind is DataKind.known_people
        return ("test",) if has_test else ("train", "validation", "test")
