"""What the results were made with, and where records disagree about it."""

from __future__ import annotations

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
        f"- Commits: {units.listed(map(_commit, provenances))}",
        f"- Devices: {units.listed(f'{p.device}, {p.threads} threads' for p in provenances)}",
        f"- Python: {units.listed(p.python for p in provenances)}; "
        f"platform: {units.listed(p.platform for p in provenances)}",
        f"- Versions: {_versions(provenances)}",
        f"- Base: {base.model}, {base.architecture}, {base.source}, "
        f"sha256 `{units.short_hash(base.content_sha256)}`{_pretraining(base.pretraining)}",
        f"- Data: {data.name}, {data.source}, sha256 `{units.short_hash(data.content_sha256)}`; "
        + ", ".join(f"{name} {units.count(split.rows)}" for name, split in data.splits.items())
        + f" rows{_dropped(data.dropped_rows)}",
        f"- Template: {data.template}, sha256 `{units.short_hash(data.template_sha256)}`; "
        f"tokenizer sha256 `{units.short_hash(data.tokenizer_sha256)}`",
        f"- Scoring: {data.scoring}, batch size {units.listed(batches)}",
        f"- Seeds: {units.listed(seeds)}",
    ]
    lines += [f"- Data warning: {warning}" for warning in data.warnings]
    lines += _disagreements(study)
    return "\n".join(lines) + "\n"


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
        return "unknown"
    changes = {True: " with uncommitted changes", False: "", None: ", changes unknown"}
    return f"`{units.short_hash(provenance.git_commit)}`{changes[provenance.git_dirty]}"


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


def _dropped(reasons: dict[str, int]) -> str:
    known = [f"{units.count(rows)} {reason}" for reason, rows in sorted(reasons.items()) if rows]
    return f"; dropped: {', '.join(known)}" if known else ""


def _disagreements(study: Study) -> list[str]:
    """One line for each thing that must be the same in all trials and scores, and is not."""
    everything = [trial.provenance for trial in study.trials]
    everything += [record.provenance for record in study.evaluations]
    # A child that was killed could not say where it ran.
    provenances = [provenance for provenance in everything if provenance.threads]
    names = sorted({name for provenance in provenances for name in provenance.versions})
    mixed = [name for name in names if len({p.versions.get(name) for p in provenances}) > 1]
    differing = {
        f"versions of {', '.join(mixed)}": bool(mixed),
        "device": len({p.device for p in provenances}) > 1,
        "training code": len({str(trial.settings.get("code")) for trial in study.trials}) > 1,
        "evaluation batch size": len({record.batch_size for record in study.evaluations}) > 1,
    }
    return [
        f"- **Not the same in all records: {what}.** Differences between rows may come from it."
        for what, differs in differing.items()
        if differs
    ]
