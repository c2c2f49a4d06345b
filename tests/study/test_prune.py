"""`lorascope prune`: what no declared grid names, shown first, and nothing else ever deleted."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lorascope.adapters.kinds import rank_of
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.locks import locked_folder
from lorascope.files.store import read_record, write_record
from lorascope.records import FootprintRecord, Status, TrialRecord
from lorascope.study.declared import declare_trial
from lorascope.study.grid import expand
from lorascope.study.params import declared_overrides
from tests.conftest import PARAMS, run_command
from tests.lock_holder import another_holder
from tests.recorded_project import write_trial
from tests.study.test_status import without_heavy_libraries
from tests.study_factory import Trial, digest

Capture = pytest.CaptureFixture[str]


def prune(layout: Layout, capture: Capture, *arguments: str) -> str:
    run_command(layout, "prune", *arguments)
    return capture.readouterr().out


def paths(layout: Layout) -> set[Path]:
    """Everything in the project but lock files."""
    locks = layout.private / "locks"
    found = {path for path in layout.root.rglob("*") if not path.is_relative_to(locks)}
    return found - {layout.private}


def add_trial(layout: Layout, quant: str, name: str, status: Status = Status.completed) -> Path:
    """A trial that no grid names, with 1000 bytes of adapter."""
    source = next(layout.trials("nf4").glob("nf4-*"))
    folder = layout.trials(quant) / name
    trial = read_record(source, TrialRecord)
    write_record(folder, replace(trial, trial=name, identity=digest(name), status=status))
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(bytes(1000))
    return folder


def add_scores(layout: Layout, quant: str, name: str) -> Path:
    source = next(layout.evaluations("nf4").glob("nf4-*"))
    return shutil.copytree(source, layout.evaluations(quant) / name)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def row(text: str, folder: Path, layout: Layout) -> list[str]:
    """Kind, status and size in the line of `folder`."""
    place = str(folder.relative_to(layout.root))
    (line,) = (line for line in text.splitlines() if line.endswith(f" {place}"))
    return line.removesuffix(place).split()


def test_what_params_name_is_not_listed(recorded: Layout, capsys: Capture) -> None:
    before = paths(recorded)
    text = prune(recorded, capsys, "--yes")
    assert text == (
        "Nothing to prune: a declared grid names every trial, score and checkpoint here.\n"
    )
    assert paths(recorded) == before


def test_what_no_grid_names_is_listed_in_all_modes_and_deleted_with_yes_only(
    recorded: Layout, capsys: Capture
) -> None:
    before = paths(recorded)
    old = add_trial(recorded, "nf4", "nf4-r0099-a0008-s0-aaaaaaaaaa")
    other_mode = add_trial(recorded, "fp4", "fp4-r0002-a0008-s0-bbbbbbbbbb", Status.diverged)
    scores = add_scores(recorded, "fp4", "fp4-r0002-a0008-s0-bbbbbbbbbb")
    damaged = add_trial(recorded, "nf4", "nf4-r0001-a0008-s0-cccccccccc")
    (damaged / RECORD).write_text("{")
    everything = paths(recorded)
    text = prune(recorded, capsys)
    assert row(text, old, recorded)[:2] == ["trial", "completed"]
    assert row(text, other_mode, recorded)[:2] == ["trial", "diverged"]
    assert row(text, scores, recorded)[:2] == ["scores", "scored"]
    assert row(text, damaged, recorded) == ["trial", "unreadable", "1.00", "kB"]
    total = sum(map(bytes_in, (old, other_mode, scores, damaged)))
    # Two modes have two trials with scores, and a bare base with scores.
    assert f"4 to delete, {total / 1000:.1f} kB; 10 named by a declared grid stay.\n" in text
    assert text.endswith("Nothing was deleted. `lorascope prune --yes` deletes the 4 listed.\n")
    assert paths(recorded) == everything
    assert f"Deleted 4, {total / 1000:.1f} kB.\n" in prune(recorded, capsys, "--yes")
    emptied = {recorded.trials("fp4"), recorded.evaluations("fp4")}
    assert paths(recorded) == before | emptied


def test_overrides_keep_more_and_never_less(recorded: Layout, capsys: Capture) -> None:
    # lora.rank=16 and one mode alone: of params.yaml nothing may go.
    added = ["quant=nf4", "lora.rank=16"]
    (config,) = expand(recorded, ["model=tiny", "data=biographies", *added, "lora.alpha=16"])
    other = write_trial(recorded, config, Trial("nf4", 16))
    before = paths(recorded)
    listed = prune(recorded, capsys)
    assert "1 to delete" in listed
    assert other.trial in listed
    assert "Nothing to prune" in prune(recorded, capsys, *added, "--yes")
    assert paths(recorded) == before


def test_the_repeated_command_keeps_the_overrides(recorded: Layout, capsys: Capture) -> None:
    add_trial(recorded, "nf4", "nf4-r0099-a0008-s0-aaaaaaaaaa")
    text = prune(recorded, capsys, "lora.rank=range(1,3)")
    assert "`lorascope prune 'lora.rank=range(1,3)' --yes` deletes" in text


def test_scratch_of_a_killed_process_goes_and_of_a_live_one_stays(
    recorded: Layout, capsys: Capture
) -> None:
    # One that params.yaml names: it is trained again, which shows that its scratch is apart.
    target = next(recorded.trials("nf4").glob("nf4-*"))
    before = paths(recorded)
    with another_holder(target, recorded) as (scratch, process):
        text = prune(recorded, capsys, "--yes")
        assert f"In use now, stays: {scratch.relative_to(recorded.root)}\n" in text
        assert "0 to delete, 0 B" in text
        assert (scratch / "half").is_file()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    text = prune(recorded, capsys)
    assert row(text, scratch, recorded) == ["scratch", "never", "finished", "1.00", "kB"]
    assert scratch.is_dir()
    prune(recorded, capsys, "--yes")
    assert paths(recorded) == before


def test_former_folder_of_a_killed_process_goes(recorded: Layout, capsys: Capture) -> None:
    name = next(recorded.trials("nf4").glob("nf4-*")).name
    former = recorded.trials("nf4") / f".{name}.abcd_123.former"
    former.mkdir()
    assert row(prune(recorded, capsys), former, recorded)[0] == "scratch"
    prune(recorded, capsys, "--yes")
    assert not former.exists()


def test_a_trial_that_is_scored_now_stays_with_its_scores(
    recorded: Layout, capsys: Capture
) -> None:
    name = "fp4-r0002-a0008-s0-bbbbbbbbbb"
    trial, scores = add_trial(recorded, "fp4", name), add_scores(recorded, "fp4", name)
    with locked_folder(scores, recorded):
        text = prune(recorded, capsys, "--yes")
    assert "0 to delete" in text
    assert trial.is_dir()
    assert scores.is_dir()
    prune(recorded, capsys, "--yes")
    assert not trial.exists()
    assert not scores.exists()


def test_checkpoints_stay_while_a_declared_or_running_trial_may_resume(
    recorded: Layout, capsys: Capture
) -> None:
    configs = expand(recorded, declared_overrides(recorded))
    trials = [declare_trial(config, recorded) for config in configs]
    missing, killed, completed, diverged = trials
    shutil.rmtree(recorded.trials("fp16") / missing.name)
    for place, status in ((1, Status.killed), (3, Status.diverged)):
        config = configs[place]
        trial = Trial(config.quant.name, rank_of(config.adapter), status=status, reason="why")
        write_trial(recorded, config, trial)
    running, unknown = digest("running"), digest("unknown")
    folders = {
        identity: recorded.checkpoints / identity / "checkpoint-2"
        for identity in (*(trial.identity for trial in trials), running, unknown)
    }
    for folder in folders.values():
        folder.mkdir(parents=True)
        (folder / "state").write_bytes(bytes(10))
    with locked_folder(recorded.trials("fp4") / f"fp4-r0001-a0001-s0-{running[:10]}", recorded):
        text = prune(recorded, capsys, "--yes")
    going = {completed.identity, diverged.identity, unknown}
    assert "3 to delete, 30 B" in text
    assert {identity for identity, folder in folders.items() if not folder.exists()} == going
    assert missing.identity not in going
    assert killed.identity not in going


def test_links_are_not_followed(recorded: Layout, capsys: Capture, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(recorded.trials("nf4"), outside / "nf4-r0099-a0008-s0-aaaaaaaaaa")
    recorded.trials("linked").symlink_to(outside)
    trial = recorded.trials("nf4") / "nf4-r0099-a0008-s0-dddddddddd"
    trial.symlink_to(next(outside.iterdir()))
    inside = add_trial(recorded, "nf4", "nf4-r0001-a0008-s0-cccccccccc")
    (inside / "link").symlink_to(outside)
    before = set(outside.rglob("*"))
    text = prune(recorded, capsys, "--yes")
    assert "Left alone: experiments/train/linked: a link" in text
    assert f"Left alone: experiments/train/nf4/{trial.name}: a link" in text
    assert not inside.exists()
    assert trial.is_symlink()
    assert set(outside.rglob("*")) == before


def test_experiments_that_are_a_link_are_left_alone(
    recorded: Layout, capsys: Capture, tmp_path: Path
) -> None:
    add_trial(recorded, "nf4", "nf4-r0099-a0008-s0-aaaaaaaaaa")
    shutil.move(recorded.root / "experiments", tmp_path / "elsewhere")
    (recorded.root / "experiments").symlink_to(tmp_path / "elsewhere")
    before = set((tmp_path / "elsewhere").rglob("*"))
    text = prune(recorded, capsys, "--yes")
    assert "Left alone: experiments/train: a link, or in one; links are not followed\n" in text
    assert set((tmp_path / "elsewhere").rglob("*")) == before


def test_a_folder_that_holds_no_record_is_left_alone(recorded: Layout, capsys: Capture) -> None:
    notes = recorded.trials("nf4") / "my notes"
    hidden = recorded.trials("nf4") / ".ipynb_checkpoints"
    for folder in (notes, hidden):
        folder.mkdir()
    (recorded.trials("nf4") / "todo.txt").write_text("mine")
    before = paths(recorded)
    assert "Left alone: experiments/train/nf4/my notes: no record" in prune(
        recorded, capsys, "--yes"
    )
    assert paths(recorded) == before


@pytest.mark.parametrize("arguments", [[], ["--yes"], ["quant=nf4", "--yes"]])
def test_nothing_is_deleted_where_what_the_grid_names_is_not_known(
    bare_project: Layout, capsys: Capture, arguments: list[str]
) -> None:
    trial = bare_project.trials("nf4") / "nf4-r0099-a0008-s0-aaaaaaaaaa"
    trial.mkdir(parents=True)
    (trial / RECORD).write_text("{}")
    with pytest.raises(LorascopeError) as caught:
        prune(bare_project, capsys, *arguments)
    message = str(caught.value)
    assert "nothing was deleted" in message
    assert "`lorascope prepare-base model=small`" in message
    assert "`lorascope quantize-base model=small quant=nf4`" in message
    assert (trial / RECORD).is_file()


def test_the_command_refuses_in_one_line_and_without_libraries_that_train(
    bare_project: Layout,
) -> None:
    done = without_heavy_libraries(bare_project, "prune", "--yes")
    assert done.returncode == 2
    assert done.stderr.startswith("lorascope: error: prune: what the grid names is not known")
    assert len(done.stderr.splitlines()) == 1


def test_one_mode_of_overrides_that_is_not_stored_refuses_all(
    recorded: Layout, capsys: Capture
) -> None:
    old = add_trial(recorded, "nf4", "nf4-r0099-a0008-s0-aaaaaaaaaa")
    with pytest.raises(LorascopeError, match="quantize-base model=tiny quant=int8"):
        prune(recorded, capsys, "quant=int8", "--yes")
    assert old.is_dir()


@pytest.mark.parametrize(
    ("argument", "part"),
    [("--force", "unknown flag --force"), ("-y", "--yes"), ("lora.rnak=8", "rnak"), ("yes", "yes")],
)
def test_what_cannot_be_read_deletes_nothing(
    recorded: Layout, capsys: Capture, argument: str, part: str
) -> None:
    old = add_trial(recorded, "nf4", "nf4-r0099-a0008-s0-aaaaaaaaaa")
    with pytest.raises(LorascopeError, match=part):
        prune(recorded, capsys, argument, "--yes")
    assert old.is_dir()


def test_a_study_that_names_no_trial_here_is_said_to_name_none(
    recorded: Layout, capsys: Capture
) -> None:
    recorded.params.write_text(recorded.params.read_text().replace('"2,8"', '"3"'))
    text = prune(recorded, capsys)
    assert "names none of the 4 trials here: all of them would go" in text
    # Another base: the scores of the former one are nobody's either.
    for quant in ("fp16", "nf4"):
        folder = recorded.quantized("tiny", quant)
        write_record(folder, replace(read_record(folder, FootprintRecord), content_sha256="0"))
    text = prune(recorded, capsys)
    assert "names nothing of what is here: everything would go" in text
    assert "10 to delete" in text


@pytest.mark.slow
def test_a_really_trained_trial_is_kept_while_it_is_named(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, capsys: Capture
) -> None:
    from lorascope.execution import sweep

    kept = sweep.run(compose("quant=nf4", "lora.rank=2", "lora.alpha=8"), project)
    other = sweep.run(compose("quant=nf4", "lora.rank=5", "lora.alpha=8"), project)
    copy = Layout(tmp_path / "copy")
    shutil.copytree(project.root, copy.root)
    assert copy.params.read_text() == PARAMS
    folder = copy.trials("nf4") / other.trial
    assert row(prune(copy, capsys), folder, copy)[:2] == ["trial", "completed"]
    prune(copy, capsys, "--yes")
    assert not folder.exists()
    assert (copy.trials("nf4") / kept.trial / "adapter").is_dir()
    assert read_record(copy.trials("nf4") / kept.trial, TrialRecord) == kept
