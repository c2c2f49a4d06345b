"""The folder of a new study: which files it gets, that nothing is overwritten in silence, and Git
and DVC around it."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_all_atomically
from lorascope.starting.wiring import TEMPLATES, present_wiring

STUDY_FILES = ("params.yaml", "dvc.yaml")
IS_STUDY = (
    "This folder holds a study or another pipeline. To add a model or rows to a study, write files "
    "of conf/ and name them in params.yaml (docs/own-data.md); for one of its own begin in another "
    "folder. "
)
QUIET = {"analytics": False, "check_update": False}
LINKS = {"type": "reflink,hardlink,symlink,copy"}


REPOSITORY_ALONE = "# Of lorascope's own repository alone"
"""What follows in a file is of no use to a study."""
OWN_CHOICES = """\
Your own choices, one file each: `conf/<group>/<name>.yaml`. They come before those of the same name
that lorascope brings; `lorascope train-lora --help` lists all groups.
"""


def fixed_texts() -> dict[str, str]:
    """Path -> text of the files that are the same in every study."""
    return {
        "dvc.yaml": present_wiring(),
        "conf/README.md": OWN_CHOICES,
        "data/raw/README.md": _template("data_raw.md"),
        "models/raw/README.md": _template("models_raw.md"),
    }


def params_template() -> str:
    return _template("params.yaml")


def _template(name: str) -> str:
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    return text.partition(REPOSITORY_ALONE)[0].rstrip() + "\n"


def refuse_overwriting(root: Path, texts: Mapping[str, str]) -> None:
    """Raise LorascopeError where a file is there already and says something else."""
    there = [
        name
        for name, text in texts.items()
        if (root / name).exists() and (root / name).read_bytes() != text.encode()
    ]
    if there:
        is_study = set(there) & set(STUDY_FILES)
        raise LorascopeError(
            f"{', '.join(there)}: there already, and left alone. {IS_STUDY if is_study else ''}"
            "--overwrite replaces what was named here."
        )


@contextmanager
def tried(texts: Mapping[str, str]) -> Iterator[Layout]:
    """The files in a folder that goes again, to compose the study before anything is written."""
    with TemporaryDirectory() as scratch:
        layout = Layout(Path(scratch))
        write_all_atomically({layout.root / name: text.encode() for name, text in texts.items()})
        yield layout


def write_study(root: Path, texts: Mapping[str, str], files: Mapping[Path, str]) -> list[str]:
    """Write the study's files, and put rows or model into place; the paths in the project of all
    that was not there.

    Args:
        files: file from elsewhere -> its path in the project. It becomes another name of the same
            bytes where the disk allows, else a copy.
    """
    write_all_atomically({root / name: text.encode() for name, text in texts.items()})
    written = list(texts)
    for source, place in files.items():
        if source.resolve() == (root / place).resolve():
            continue
        written.append(place)
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).unlink(missing_ok=True)
        _link_or_copy(source.resolve(), root / place)
    return written


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def add_ignored(root: Path) -> None:
    """Let Git and DVC pass over what stages make: lines that .gitignore and .dvcignore lack."""
    for name in ("gitignore", "dvcignore"):
        path = root / f".{name}"
        there = path.read_text(encoding="utf-8") if path.is_file() else ""
        lacking = [line for line in _template(name).splitlines() if line not in there.splitlines()]
        if there and not there.endswith("\n"):
            there += "\n"
        if any(lacking):
            path.write_text(there + "\n".join(lacking) + "\n", encoding="utf-8")


def begin_dvc(root: Path, with_git: bool) -> str:
    """Have DVC, and Git where it is wanted, look after the folder; what was done, in words."""
    from dvc.repo import Repo

    done = []
    home = _upwards(root, ".dvc")
    if home is None:
        top = _upwards(root, ".git") if with_git else None
        if with_git and top is None:
            _git_init(root)
            top = root
            done.append("git init")
        is_below = top is not None and top.resolve() != root.resolve()
        logging.getLogger("dvc").setLevel(logging.WARNING)
        repo = Repo.init(str(root), no_scm=not with_git, subdir=is_below)
        with repo, repo.config.edit() as edited:
            edited["core"].update({**QUIET, "autostage": with_git})
            edited["cache"].update(LINKS)
        home = root
        done.append("dvc init")
    _copy_plots(home)
    if "git init" in done:
        done.append(_first_commit(root))
    return ", ".join(done)


def _copy_plots(home: Path) -> None:
    for plot in sorted((TEMPLATES / "plots").glob("*.json")):
        target = home / ".dvc" / "plots" / plot.name
        target.parent.mkdir(exist_ok=True)
        if not target.exists():
            shutil.copyfile(plot, target)


def _first_commit(root: Path) -> str:
    """Commit what was written, without which `dvc exp run` cannot run; what was done, in words."""
    try:
        for words in (("add", "-A"), ("commit", "-qm", "Begin a study")):
            subprocess.run(["git", "-C", str(root), *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        known = subprocess.run(
            ["git", "-C", str(root), "var", "GIT_AUTHOR_IDENT"], check=False, capture_output=True
        )
        asks = "git config user.name NAME && git config user.email ADDRESS && "
        return (
            f"no commit{' yet, as Git does not know you' if known.returncode else ''}; `dvc exp "
            f"run` needs one: {asks if known.returncode else ''}git add -A && git commit -m "
            "'Begin a study'"
        )
    return "first commit"


def _upwards(root: Path, name: str) -> Path | None:
    folders = (root.resolve(), *root.resolve().parents)
    return next((folder for folder in folders if (folder / name).exists()), None)


def _git_init(root: Path) -> None:
    try:
        subprocess.run(["git", "init", "-q", str(root)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise LorascopeError(
            f"git init: {error}. Install git, or begin without it: `lorascope init --no-scm ...`."
        ) from error
