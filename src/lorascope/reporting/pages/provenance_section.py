"""What the results were made with, and where records disagree about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lorascope.files.revisions import trained_by
from lorascope.records import Provenance, SplitCard, Study, mixed_versions
from lorascope.reporting import units
from lorascope.reporting.pages.document import Block, Bullets, Code, Facts, Line, Strong


def provenance_blocks(study: Study) -> Iterator[Block]:
    """Distinct values of all records are listed, so that a mixture shows."""
    provenances = _provenances(study)
    data, base = study.data, study.base
    seeds = [trial.key.seed for trial in study.trials] + [k.seed for k in study.missing.values()]
    # What a chat template was told when it asked for today.
    date = f" on {data.template_date}" if data.template_date else ""
    facts: list[tuple[str, Line]] = [
        ("Commit", (units.listed(map(_commit, provenances)),)),
        ("dvc.lock", (_locks(provenances),)),
        ("Trained by", (_training_code(study),)),
        ("Device", (units.listed(map(_device, provenances)),)),
        ("Python", (units.listed(p.python for p in provenances),)),
        ("Platform", (units.listed(p.platform for p in provenances),)),
        ("Versions", (_versions(provenances),)),
        (
            "Base",
            (
                f"{base.model}, {base.architecture}, {base.source}, sha256 ",
                Code(units.short_hash(base.content_sha256)),
                _pretraining(base.pretraining),
            ),
        ),
        ("Data", (f"{data.name}, {data.source}, sha256 ",
                  Code(units.short_hash(data.content_sha256)))),
        ("Rows", (_rows(study),)),
        ("Template", (f"{data.template}{date}, sha256 ",
                      Code(units.short_hash(data.template_sha256)))),
        ("Tokenizer", ("sha256 ", Code(units.short_hash(data.tokenizer_sha256)))),
        ("Scoring", (f"{data.scoring}, batch size "
                     f"{units.listed(sorted({e.batch_size for e in study.evaluations}))}",)),
        ("Seeds", (units.listed(sorted(seeds)),)),
    ]  # fmt: skip
    yield Facts(tuple(facts))
    remarks: list[Line] = [(f"Data warning: {warning}",) for warning in data.warnings]
    remarks += _disagreements(study)
    if remarks:
        yield Bullets(tuple(remarks))


def _device(provenance: Provenance) -> str:
    plural = "" if provenance.threads == 1 else "s"
    fixed = ", deterministic algorithms" if provenance.deterministic else ""
    shards = f", each of {provenance.shards} that divide the base" if provenance.shards > 1 else ""
    placed = f", layers placed over {provenance.placed}" if provenance.placed > 1 else ""
    return f"{provenance.device} ({provenance.threads} thread{plural}{fixed}{shards}{placed})"


def _provenances(study: Study) -> list[Provenance]:
    return [
        study.data.provenance,
        study.base.provenance,
        *(record.provenance for record in study.footprints),
        *(record.provenance for record in study.trials),
        *(record.provenance for record in study.evaluations),
        *([study.merge.provenance] if study.merge else []),
    ]


def _commit(provenance: Provenance) -> str:
    if provenance.git_commit is None:
        # Git was there and saw changes, all of the study.
        return "none yet" if provenance.git_dirty else "unknown"
    changes = {True: " with uncommitted changes", False: "", None: ", changes unknown"}
    return f"{units.short_hash(provenance.git_commit)}{changes[provenance.git_dirty]}"


def _training_code(study: Study) -> str:
    """Whose values the trials have, and how those that are older than it came to pass for it."""
    counts = Counter(trained_by(trial) for trial in study.trials)
    said = [f"{code} ({units.count(trials)} trials)" for code, trials in sorted(counts.items())]
    former = Counter(
        (t.taken_over.trained_by, t.taken_over.assumed) for t in study.trials if t.taken_over
    )
    said += [
        f"{units.count(trials)} of them by {code}, "
        + (
            "on the word of whoever took them over"
            if assumed
            else "which is known to give the same"
        )
        for (code, assumed), trials in sorted(former.items())
    ]
    return "; ".join(said) or "nothing"


def _locks(provenances: list[Provenance]) -> str:
    """The lock file as the last record saw it: every stage that ends rewrites it."""
    known = [p for p in provenances if p.dvc_lock_sha256 is not None]
    if not known:
        return "unknown"
    last = max(known, key=lambda p: (p.created_utc, p.dvc_lock_sha256))
    states = len({p.dvc_lock_sha256 for p in known})
    among = "" if states == 1 else f", the last of {states} states that the records saw"
    return f"sha256 {units.short_hash(last.dvc_lock_sha256 or '')}{among}"


def _versions(provenances: list[Provenance]) -> str:
    names = sorted({name for provenance in provenances for name in provenance.versions})
    return ", ".join(
        f"{name} {units.listed((p.versions.get(name) for p in provenances), ' and ')}"
        for name in names
    )


def _pretraining(measured: dict[str, float] | None) -> str:
    if not measured:
        return ""
    return "; " + ", ".join(f"{name} {units.number(value)}" for name, value in measured.items())


def _rows(study: Study) -> str:
    data = study.data
    kept = ", ".join(f"{name} {_kept(split)}" for name, split in data.splits.items())
    lost = [f"{units.count(rows)} {why}" for why, rows in sorted(data.dropped_rows.items()) if rows]
    return kept + (f"; dropped: {', '.join(lost)}" if lost else "")


def _kept(split: SplitCard) -> str:
    """80, or of pairs that share prompts: 80 (52 prompts)."""
    rows, prompts = units.count(split.rows), split.prompts
    if prompts is None or prompts == split.rows:
        return rows
    return f"{rows} ({units.count(prompts)} prompts)"


def _disagreements(study: Study) -> list[Line]:
    """One line for each thing that must be the same in all trials and scores, and is not."""
    everything = [trial.provenance for trial in study.trials]
    everything += [record.provenance for record in study.evaluations]
    # A child that was killed could not say where it ran.
    provenances = [provenance for provenance in everything if provenance.threads]
    mixed = mixed_versions(provenances)
    differing = {
        f"versions of {', '.join(mixed)}": bool(mixed),
        "device": len({p.device for p in provenances}) > 1,
        "number of devices that divide a base": len(
            {trial.provenance.shards for trial in study.trials if trial.provenance.threads}
        )
        > 1,
        "number of devices that layers are placed over": len(
            {trial.provenance.placed for trial in study.trials if trial.provenance.threads}
        )
        > 1,
        "training code": len({trained_by(trial) for trial in study.trials}) > 1,
        "evaluation batch size": len({record.batch_size for record in study.evaluations}) > 1,
    }
    return [
        (
            Strong(f"Not the same in all records: {what}."),
            " Differences between rows may come from it.",
        )
        for what, differs in differing.items()
        if differs
    ]
