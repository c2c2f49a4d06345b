"""Disks that are full, read-only or hold a file in the way: told, nothing lost, and the same
command goes on afterwards. The disks are real ones in memory, which only root may mount."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lorascope.comparing.findings import compare
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.execution import sweep as sweeps
from lorascope.files.disk_faults import disk_fault
from lorascope.files.layout import RECORD, Layout
from lorascope.files.replacing import finish_replacements, replaced_folder
from lorascope.files.store import read_record
from lorascope.records import TrialRecord
from lorascope.reporting.catalogue import write_reports
from lorascope.scoring.evaluation import LoadedBase
from lorascope.stages import (
    evaluate,
    merge,
    prepare_base,
    prepare_data,
    quantize_base,
    report,
)
from lorascope.study.collect import collect
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides
from tests.command_line import lorascope
from tests.conftest import BASE_OVERRIDES, compose_one

TOLD = "what is finished is kept"


def mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def disk(project: Layout, tmp_path: Path) -> Iterator[Layout]:
    """A copy of the prepared project on a disk of its own of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder))
    try:
        for part in ("conf", "data", "models", "params.yaml"):
            source = project.root / part
            copy: Callable[..., object] = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, folder / part)
        yield Layout(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(layout: Layout, left_bytes: int = 0) -> Iterator[None]:
    """No more than `left_bytes` are free on the project's disk meanwhile."""
    ballast = layout.root / "ballast"
    system = os.statvfs(layout.root)
    ballast.write_bytes(bytes(system.f_bavail * system.f_frsize - left_bytes))
    try:
        yield
    finally:
        ballast.unlink()


@contextmanager
def read_only(layout: Layout) -> Iterator[None]:
    mount("-o", "remount,ro", str(layout.root))
    try:
        yield
    finally:
        mount("-o", "remount,rw", str(layout.root))


def hidden(layout: Layout) -> list[Path]:
    """Scratch of whatever kind."""
    return [
        p for top in ("data", "models", "experiments") for p in layout.root.rglob(f"{top}/**/.*")
    ]


def stages(config: Config, layout: Layout) -> dict[str, Callable[[], object]]:
    return {
        "prepare-base": lambda: prepare_base.command([config], layout),
        "prepare-data": lambda: prepare_data.command([config], layout),
        "quantize-base": lambda: quantize_base.command([config], layout),
        "train-lora": lambda: sweeps.run(config, layout),
        "evaluate": lambda: evaluate.command([config], layout)[0],
        "merge": lambda: merge.command([config], layout),
        "report": lambda: report.command([config], layout),
    }


def fault_of(run: Callable[[], object]) -> str:
    """What the command line would say."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        run()
    if isinstance(caught.value, LorascopeError):
        return str(caught.value)
    return disk_fault(caught.value) or repr(caught.value)


@pytest.mark.slow
def test_a_full_disk_ends_each_stage_with_a_sentence_and_room_lets_it_go_on(
    project: Layout, disk: Layout
) -> None:
    shutil.copytree(project.root / "models/raw", disk.root / "models/raw", dirs_exist_ok=True)
    LoadedBase.key = None
    for name, run in stages(compose_one(disk, "quant=nf4"), disk).items():
        with full(disk):
            told = fault_of(run)
        assert "no space left on the disk" in told, f"{name}: {told}"
        assert TOLD in told
        assert not hidden(disk), name
        run()
    assert (disk.reports / "report.md").is_file()


@pytest.mark.slow
def test_a_sweep_on_a_full_disk_keeps_finished_trials_and_the_same_command_goes_on(
    disk: Layout,
) -> None:
    sweep = ["train-lora", "-m", *BASE_OVERRIDES, "quant=fp16", "lora.rank=2,512"]
    with full(disk, left_bytes=1_000_000):
        done = lorascope(disk, *sweep, "runtime.pack_trials=1")
    assert done.returncode == 2, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    (finished,) = disk.trials("fp16").glob(f"*/{RECORD}")
    assert read_record(finished.parent, TrialRecord).key.dials["rank"] == 2
    assert not hidden(disk)
    written = finished.stat().st_mtime_ns
    again = lorascope(disk, *sweep)
    assert again.returncode == 0, again.stderr
    assert len(list(disk.trials("fp16").glob(f"*/{RECORD}"))) == 2
    assert finished.stat().st_mtime_ns == written


def test_a_pack_on_a_full_disk_keeps_the_trials_that_fit(disk: Layout) -> None:
    """Adapters of ranks 1, 2, 16 and 64 take 8, 16, 131 and 524 kB; a record takes some."""
    ranks = (64, 1, 2, 16)
    configs = [compose_one(disk, "quant=fp16", f"lora.rank={rank}", "seed=3") for rank in ranks]
    with full(disk, left_bytes=260_000):
        told = fault_of(lambda: sweeps.run_sweep(configs, disk))
    assert "no space left on the disk" in told
    assert "fp16-r0064" in told
    assert not hidden(disk)
    kept = {read_record(path.parent, TrialRecord).key.dials["rank"] for path in trial_records(disk)}
    assert kept == {1, 2, 16}
    assert len(list(disk.trials("fp16").iterdir())) == 3
    assert not list(disk.checkpoints.glob("*/*"))
    written = {path: path.stat().st_mtime_ns for path in trial_records(disk)}
    sweeps.run_sweep(configs, disk)
    assert len(trial_records(disk)) == 4
    assert written.items() <= {p: p.stat().st_mtime_ns for p in trial_records(disk)}.items()


def trial_records(layout: Layout) -> list[Path]:
    return list(layout.trials("fp16").glob(f"*/{RECORD}"))


def test_reports_are_written_all_or_none(recorded: Layout, tmp_path: Path) -> None:
    """The first files would have fitted."""
    configs = expand(recorded, declared_overrides(recorded))
    folder = tmp_path / "small disk"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder))
    try:
        study = collect(configs, recorded)
        with pytest.raises(OSError, match="No space left") as caught:
            write_reports(study, compare(study), folder)
        assert "no space left on the disk" in str(disk_fault(caught.value))
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    report.command(configs, recorded)
    before = {path: path.read_bytes() for path in recorded.reports.iterdir()}
    assert sum(map(len, before.values())) > 128 * 1024


def test_a_checkpoint_that_finds_no_room_leaves_the_one_before(disk: Layout) -> None:
    config = compose_one(
        disk, "quant=fp16", "lora.rank=64", "train.checkpoint_every_steps=2", "seed=4"
    )
    # One of them takes 1.6 MB: an adapter and two moments.
    with full(disk, left_bytes=2_500_000):
        assert "no space left on the disk" in fault_of(lambda: sweeps.run(config, disk))
    (kept,) = disk.checkpoints.glob("*/*/checkpoint-*")
    assert kept.name == "checkpoint-2"
    record = sweeps.run(config, disk)
    assert record.result is not None
    assert record.result.resumed_at_step == 2


@pytest.mark.slow
def test_on_a_read_only_disk_writers_say_so_and_readers_work(disk: Layout) -> None:
    config = compose_one(disk, "quant=nf4")
    runs = stages(config, disk)
    sweeps.run(config, disk)
    evaluate.command([config], disk)
    del runs["evaluate"]
    other = compose_one(disk, "quant=nf4", "seed=9")
    runs["train-lora"] = lambda: sweeps.run(other, disk)
    with read_only(disk):
        for name, run in runs.items():
            if name != "prepare-base":
                told = fault_of(run)
                assert "Read-only file system. Mount the disk for writing" in told, (
                    f"{name}: {told}"
                )
                assert str(disk.root) in told
        looked = lorascope(disk, "status", "quant=nf4", "lora.rank=16", "lora.alpha=16")
        assert looked.returncode == 1, looked.stderr
        assert "by the records of 1 trials" in looked.stdout
    assert not hidden(disk)


def test_a_file_where_a_folder_belongs_is_named(disk: Layout) -> None:
    (disk.root / "experiments").write_text("in the way")
    done = lorascope(disk, "train-lora", *BASE_OVERRIDES, "quant=nf4", "lora.rank=16")
    assert done.returncode == 2
    assert str(disk.root / "experiments") in done.stderr
    assert "move it away" in done.stderr
    assert "Traceback" not in done.stderr
    assert (disk.root / "experiments").read_text() == "in the way"


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/file"), "/d/file: no space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "no space left"),
        (RuntimeError("Error while serializing: I/O error: x (os error 28)"), "no space left"),
        (RuntimeError("Error while serializing: I/O error: x (os error 30)"), "Read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/d"), "/d: Permission denied. Mount"),
        (NotADirectoryError(errno.ENOTDIR, "x", "/d"), "move it away"),
        (OSError(errno.EIO, "Input/output error"), "itself fails"),
        (FileNotFoundError(errno.ENOENT, "No usable temporary directory found"), "set TMPDIR"),
        (OSError(errno.ENOENT, "No such file"), None),
        (ValueError("28"), None),
    ],
)
def test_what_the_disk_refuses_is_told_with_a_remedy(error: Exception, part: str | None) -> None:
    told = disk_fault(error)
    assert told is None if part is None else part in str(told)


def test_a_folder_whose_replacement_cannot_be_moved_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with replaced_folder(target) as scratch:
        (scratch / "old").write_text("")
    with pytest.raises(OSError, match="target"), replaced_folder(target) as scratch:
        # What would take its place has gone.
        shutil.rmtree(scratch)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["target"]
    finish_replacements(tmp_path)
