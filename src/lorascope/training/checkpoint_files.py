"""Which checkpoints of a pack are whole: judged by a digest of their files, nothing is loaded."""

from __future__ import annotations

from pathlib import Path

from lorascope.files.store import apply_umask, sha256_of_files

PREFIX = "checkpoint-"
TENSORS, LOG, DIGEST = "pack.safetensors", "pack.json", "sha256"
CONTENT = ("*.safetensors", "*.json")
"""What the digest covers."""


def sign_checkpoint(folder: Path) -> None:
    """Write the digest of a checkpoint's files beside them; who may read them says the umask."""
    apply_umask(folder)
    (folder / DIGEST).write_text(sha256_of_files(folder, CONTENT), encoding="ascii")


def last_checkpoint(folder: Path | None) -> Path | None:
    """The one with most steps of those that are whole; None where there is none."""
    whole = [path for path in checkpoints(folder) if is_whole(path)]
    return whole[-1] if whole else None


def checkpoints(folder: Path | None) -> list[Path]:
    """All in `folder`, whole or not, by steps: no clock is asked which came last."""
    found = folder.glob(f"{PREFIX}*") if folder is not None and folder.is_dir() else []
    named = [path for path in found if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(named, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The steps that were trained until then."""
    return int(checkpoint.name.removeprefix(PREFIX))


def is_whole(checkpoint: Path) -> bool:
    """Whether its files are those that were saved: a cut one may load, and train on nonsense."""
    signed = checkpoint / DIGEST
    if not signed.is_file():
        return False
    return signed.read_bytes() == sha256_of_files(checkpoint, CONTENT).encode()
