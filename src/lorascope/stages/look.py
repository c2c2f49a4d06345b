"""look: rows as they will be trained, before anything is prepared or trained."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lorascope.config import Config, Scoring
from lorascope.errors import ConfigError
from lorascope.files.layout import Layout
from lorascope.machine.libraries import import_uncollected
from lorascope.records import DataCard
from lorascope.starting.shown_row import BETWEEN_MARKS, IN_COLOUR, marked, trained_spans
from lorascope.study.foregone import judged_at_once, too_few_items, too_few_to_settle

if TYPE_CHECKING:
    from lorascope.data.rows import PreparedRow
    from lorascope.data.tokenization import Tokenizer

ROWS = "10"
SHOWN_PLACES = 3


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], _: Sequence[str]
) -> None:
    """Print some training rows, lengths, and what would be dropped and why.

    Raises:
        LorascopeError: model or rows are missing, or too many rows cannot be used.
    """
    config, count = configs[0], _count(flags.get("--rows", ROWS))
    import_uncollected("lorascope.starting.found_model")
    from lorascope.starting.found_model import declared_model, facts_of
    from lorascope.starting.rendered import rendered

    facts = facts_of(declared_model(config.model, layout), layout.root)
    arguments = (config.model.name, facts.tokenizer, facts.context_tokens, layout)
    marks = _marks()
    with rendered(config.data, *arguments) as found:
        rows = found.rows("train")
        shown = rows[:count]
        print(_legend(len(shown), len(rows), config, marks))
        for number, row in enumerate(shown, start=1):
            print(_shown(number, row, facts.tokenizer, config, marks))
        print(_lengths(found.card))
        print(_reasons(found.card), end="")
        clusters = [row.cluster for row in found.rows("validation")]
    margin, candidates = config.decide.margin_accuracy, judged_at_once(configs)
    few = too_few_items(config.data, margin, clusters, candidates)
    for sentence in (*few, *too_few_to_settle(configs, len(clusters))):
        print(f"too few: {sentence}")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError("--rows", text, "no number of rows", "Write `--rows 10`.")
    return int(text)


def _marks() -> tuple[str, str]:
    """Colour where a person looks on; https://no-color.org."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return IN_COLOUR if wanted else BETWEEN_MARKS


def _legend(shown: int, rows: int, config: Config, marks: tuple[str, str]) -> str:
    opening, closing = marks
    if config.data.scoring is Scoring.classes:
        return f"{shown} of {rows} training rows; the class behind => is what is learnt:"
    return f"{shown} of {rows} training rows; {opening}what is trained{closing} stands out:"


def _shown(
    number: int, row: PreparedRow, tokenizer: Tokenizer, config: Config, marks: tuple[str, str]
) -> str:
    """A row with its length in tokens."""
    if config.data.scoring is Scoring.classes:
        texts = " | ".join(segment.text for segment in row.segments)
        return f"--- {number}\n{texts} => {marks[0]}{row.completion}{marks[1]}"
    whole = config.data.train_on_prompt
    found = trained_spans(row, tokenizer, whole)
    lines = [
        f"--- {number}: {found.tokens} tokens, {found.trained_tokens} trained",
        marked(found, marks),
    ]
    if row.rejected is not None:
        other = trained_spans(row.with_rejected, tokenizer, whole)
        lines += [f"    rejected: {other.tokens} tokens", marked(other, marks)]
    return "\n".join(lines)


def _lengths(card: DataCard) -> str:
    """How long training samples are, and how many rows would be dropped."""
    lengths = card.splits["train"].length_percentiles_tokens
    dropped = ", ".join(f"{n} {reason}" for reason, n in card.dropped_rows.items()) or "none"
    return (
        f"a sample has {lengths['p50']} (median) to {lengths['p100']} tokens ({card.max_tokens} "
        f"allowed); of {card.rows_read} rows dropped: {dropped}"
    )


def _reasons(card: DataCard) -> str:
    """The first places of rows that cannot be trained on, a line a reason."""
    lines = []
    for reason, places in card.unfit_rows.items():
        more = len(places) - SHOWN_PLACES
        told = "; ".join(places[:SHOWN_PLACES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"  {reason}: {told}\n")
    return "".join(lines)
