"""What a million tokens cost: by the speed that was measured while a configuration was scored, at
the price of an hour of that machine, beside what others ask for theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorascope.comparing.results import CellKey, CellScore
from lorascope.config import DecideConfig
from lorascope.records import EvaluationRecord, Study, Throughput

SECONDS_AN_HOUR = 3600
MILLION = 1e6


@dataclass(frozen=True)
class TokenPrice:
    """One configuration, or a hosted model. None is not measured, or without a price."""

    cell: CellKey | None
    """None of a hosted model."""
    hosted: str | None = None
    """Its name, as the rule has it."""
    read_per_second: float | None = None
    """Tokens of prompts and completions whose losses were asked for, padding excluded."""
    written_per_second: float | None = None
    """Tokens that were generated, all sequences of a batch together; the seconds hold the reading
    of their prompts."""
    timed_seconds: float | None = None
    """That both speeds rest on; short ones are rough."""
    batch_sizes: tuple[int, ...] = ()
    """Sequences at once, at most: of what was timed, the least first."""
    device: str | None = None
    read_money: float | None = None
    """A million tokens read."""
    written_money: float | None = None


def token_prices(study: Study, cells: Sequence[CellScore]) -> tuple[TokenPrice, ...]:
    """Of every scored configuration, then the hosted models of the rule; nothing where nothing was
    measured and no price is stated."""
    rule, scores = study.decide, _by_subject(study)
    scored = [(cell, own) for cell in cells if (own := _scores_of(cell, scores))]
    found = [_price(cell, own, rule) for cell, own in scored]
    measured = any(price.timed_seconds is not None for price in found)
    if not (measured or rule.price_per_hour is not None or rule.hosted):
        return ()
    return (*found, *_hosted(rule))


def _hosted(rule: DecideConfig) -> Iterator[TokenPrice]:
    for name, (read, written) in rule.hosted.items():
        yield TokenPrice(None, name, read_money=read, written_money=written)


def _price(score: CellScore, scored: Sequence[EvaluationRecord], rule: DecideConfig) -> TokenPrice:
    measured = [e for e in scored if e.throughput is not None]
    timed = [e.throughput for e in measured if e.throughput is not None]
    if not timed:
        return TokenPrice(score.cell)
    read, written = _speed(timed, "read"), _speed(timed, "written")
    return TokenPrice(
        cell=score.cell,
        read_per_second=read,
        written_per_second=written,
        timed_seconds=sum(one.read_seconds + one.written_seconds for one in timed),
        batch_sizes=tuple(sorted({e.batch_size for e in measured})),
        device=", ".join(sorted({e.provenance.device for e in measured})),
        read_money=money_a_million(read, rule.price_per_hour),
        written_money=money_a_million(written, rule.price_per_hour),
    )


def _by_subject(study: Study) -> dict[tuple[str, str], EvaluationRecord]:
    """(trial's name, form) -> its scores; (mode, '') -> those of its bare base."""
    names = {trial.identity: trial.trial for trial in study.trials}
    found = {}
    for record in study.evaluations:
        if record.trial_identity is None:
            found[record.quant, ""] = record
        elif record.trial_identity in names:
            found[names[record.trial_identity], record.form] = record
    return found


def _scores_of(
    score: CellScore, scores: Mapping[tuple[str, str], EvaluationRecord]
) -> list[EvaluationRecord]:
    """The scores of a cell's trials in its form, or of its bare base."""
    keys = [(trial.trial, score.cell.serve) for trial in score.trials]
    keys = [(score.cell.quant, "")] if score.cell.base else keys
    return [scores[key] for key in keys if key in scores]


def _speed(timed: Sequence[Throughput], what: str) -> float | None:
    """Tokens a second over all seeds together; None where nothing of it was done."""
    tokens = sum(getattr(one, f"{what}_tokens") for one in timed)
    seconds = sum(getattr(one, f"{what}_seconds") for one in timed)
    return tokens / seconds if tokens and seconds > 0 else None


def money_a_million(tokens_per_second: float | None, price_per_hour: float | None) -> float | None:
    """price an hour / (tokens a second x 3600) x 10^6: 1.8 an hour at 1,000 tokens a second is 0.5
    a million."""
    if tokens_per_second is None or price_per_hour is None:
        return None
    return price_per_hour / (tokens_per_second * SECONDS_AN_HOUR) * MILLION
