"""What the results were made with, and where records disagree about it."""

from __future__ import annotations

from collections.abc import Iterable

from lorascope.records import Provenance, Study
from lorascope.reporting import units


def provenance_section(study: Study) -> str:
    """Markdown. Distinct values of all records are listed, so that a mixture shows."""
    provenances = _provenances(study)
    seeds = sorted({trial.key.seed for trial in study.trials})
    batches = sorted({record.batch_size for record in study.evaluations})
    data, base = study.data, study.base
    lines = [
        "## Provenance\n",
        f"- Commits: {_listed(map(_commit, provenances))}",
        f"- Devices: {_listed(f'{p.device}, {p.threads} threads' for p in provenances)}",
        f"- Python: {_listed(p.python for p in provenances)}; "
        f"platform: {_listed(p.platform for p in provenances)}",
        f"- Versions: {_versions(provenances)}",
        f"- Base: {base.model}, {base.architecture}, {base.source}, "
        f"sha256 `{units.short_hash(base.content_sha256)}`",
        f"- Data: {data.name}, {data.source}, sha256 `{units.short_hash(data.content_sha256)}`; "
        + ", ".join(f"{name} {units.count(split.rows)}" for name, split in data.splits.items())
        + f" rows{_dropped(data.dropped_rows)}",
        f"- Template: {data.template}, sha256 `{units.short_hash(data.template_sha256)}`; "
        f"tokenizer sha256 `{units.short_hash(data.tokenizer_sha256)}`",
        f"- Scoring: {data.scoring}, batch size {_listed(batches)}; seeds: {_listed(seeds)}",
    ]
    lines += [f"- Data warning: {warning}" for warning in data.warnings]
    lines += _disagreements(provenances, batches)
    return "\n".join(lines) + "\n"


def _provenances(study: Study) -> list[Provenance]:
    records = [study.data, study.base, *study.footprints, *study.trials, *study.evaluations]
    merged = [study.merge] if study.merge else []
    return [record.provenance for record in (*records, *merged)]


def _commit(provenance: Provenance) -> str:
    if provenance.git_commit is None:
        return "unknown"
    changes = {True: " with uncommitted changes", False: "", None: ", changes unknown"}
    return f"`{units.short_hash(provenance.git_commit)}`{changes[provenance.git_dirty]}"


def _versions(provenances: list[Provenance]) -> str:
    names = sorted({name for provenance in provenances for name in provenance.versions})
    return ", ".join(
        f"{name} {_listed((p.versions.get(name) for p in provenances), ' and ')}" for name in names
    )


def _dropped(reasons: dict[str, int]) -> str:
    known = [f"{units.count(rows)} {reason}" for reason, rows in sorted(reasons.items()) if rows]
    return f"; dropped: {', '.join(known)}" if known else ""


def _disagreements(provenances: list[Provenance], batches: list[int]) -> list[str]:
    """One line for each thing that must be the same in all that is compared, and is not."""
    names = sorted({name for provenance in provenances for name in provenance.versions})
    mixed = [name for name in names if len({p.versions.get(name) for p in provenances}) > 1]
    differing = {
        f"versions of {', '.join(mixed)}": bool(mixed),
        "device": len({p.device for p in provenances}) > 1,
        "commit": len({p.git_commit for p in provenances}) > 1,
        "evaluation batch size": len(batches) > 1,
    }
    return [
        f"- **Not the same in all records: {what}.** Differences between rows may come from it."
        for what, differs in differing.items()
        if differs
    ]


def _listed(values: Iterable[object], between: str = ", ") -> str:
    """Distinct values in the order of their first appearance."""
    return between.join(str(value) for value in dict.fromkeys(values)) or "none"
