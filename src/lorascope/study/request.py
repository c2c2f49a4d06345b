"""A command line as points of the grid: what it says, and what params.yaml says where it is silent.

Hydra composes every point through its compose API (`study.grid`). Its own command line runs where
something of Hydra's is asked for: to show a configuration, or another launcher for the jobs. Flags
begin with a dash: stages take Hydra's, as far as they fit, other commands their own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import hydra
from omegaconf import DictConfig

from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.study.composing import object_of, plain_errors, register_schema
from lorascope.study.grid import expand, recipe_axes, recipe_parts, with_overrides
from lorascope.study.habits import called_here
from lorascope.study.overrides import is_hydra, known_keys, read_overrides, refuse_sweep
from lorascope.study.params import ENGINE, READS, declared_overrides, group_of
from lorascope.study.spelling import closest

SWEEP = ("-m", "--multirun")
SHOW = (
    "--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i", "--version",
    "--shell-completion", "-sc",
)  # fmt: skip
"""Flags with which Hydra shows something instead of running the stage."""
WITH_SHOWN = ("--resolve", "--package", "-p", "--run", "-r")
VALUED = ("--cfg", "-c", "--package", "-p")
INFO = ("--info", "-i")
INFO_WORDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
OTHER_FOLDERS = (
    "--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun",
)  # fmt: skip
OF_FILES = ("kind", "name")
"""Settings that a file of conf/ says, and no word."""
ONE_OF = (
    "recipe", "model", "data", "evaluate", "merge", "decide", "search", "ship", "runtime", "engine",
)  # fmt: skip
"""First parts of keys that are no axes of a study."""

PACKED = "hydra/launcher=packed"
"""The launcher's name for what a command does where no other is asked for."""

Run = Callable[[list[Config]], object]


@dataclass(frozen=True)
class Arguments:
    """A command line, taken apart."""

    flags: dict[str, str]
    """Each with its value, which is empty where it has none."""
    overrides: list[str]

    @property
    def sweeps(self) -> bool:
        return any(flag in SWEEP for flag in self.flags)

    @property
    def asks_only(self) -> bool:
        return any(flag in SHOW for flag in self.flags)


def take_apart(arguments: Sequence[str], valued: Container[str] = VALUED) -> Arguments:
    """Flags and overrides; the word after one of the `valued` flags is its value."""
    found = Arguments({}, [])
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            found.overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        takes_next = flag in valued or (flag in INFO and left[:1] and left[0] in INFO_WORDS)
        found.flags[flag] = left.pop(0) if takes_next and left and not equals else value
    return found


def trains_here(arguments: Sequence[str], layout: Layout) -> bool:
    """Whether the words and params.yaml choose no other engine than this computer. A recipe, or
    conf/config.yaml, may still do so: nothing but what is begun in advance follows from this."""
    words = (*declared_overrides(layout), *arguments)
    chosen = [word for word in words if word.startswith(f"{ENGINE}=")]
    return not chosen or chosen[-1] == f"{ENGINE}=local"


def refuse_foreign_flags(command: str, flags: Mapping[str, str], arguments: Sequence[str]) -> None:
    """Raise for a flag that Hydra would misunderstand, or that leads out of conf/."""
    for flag in flags:
        if flag in OTHER_FOLDERS:
            raise LorascopeError(
                f"{command}: {flag} is not supported, as stages, records and DVC know this "
                "project's conf/ alone. Put the file into conf/<group>/ and choose it: group=name."
            )
        if flag not in (*SWEEP, *SHOW, *WITH_SHOWN):
            raise LorascopeError(
                f"{command}: unknown flag {flag}.{_as_word(flag, flags[flag], arguments)} It takes "
                "key=value, -m to sweep, and --help."
            )


def own_flags(command: str, arguments: Sequence[str], known: Mapping[str, str]) -> Arguments:
    """The arguments of a command that has flags of its own: those of `known`, each with an example
    of its value, which is empty for one that takes none."""
    given = take_apart(arguments, [flag for flag, example in known.items() if example])
    for word in given.overrides:
        if f"--{word.partition('=')[0]}" in known:
            flag = f"--{word.replace('=', ' ', 1)}"
            raise LorascopeError(f"{command}: {word} is a flag. Write {flag}.")
    for flag, value in given.flags.items():
        if flag not in known or (value and not known[flag]):
            word = f"{flag}={value}" if value else flag
            near = closest(flag, list(known)) or _as_word(flag, value, arguments)
            raise LorascopeError(f"{command}: unknown flag {word}.{near} {_takes(command, known)}")
        if known[flag] and (not value or value.startswith("-")):
            raise LorascopeError(f"{command}: {flag} lacks its value. {_takes(command, known)}")
    return given


def _as_word(flag: str, value: str, arguments: Sequence[str]) -> str:
    """A sentence that writes what other programs take as a flag as a word: --model ../mine."""
    behind = arguments[arguments.index(flag) + 1 :] if flag in arguments else []
    value = value or next((w for w in behind[:1] if not w.startswith("-")), "")
    if not flag.startswith("--"):
        return ""
    if here := called_here(flag.lstrip("-")):
        # Its value may be told otherwise.
        return f" Settings are words without dashes, and this one is {here} here."
    if not value:
        return ""
    key = _key_of(flag.lstrip("-"))
    return f" Settings are words without dashes: {key}={value}." if key else ""


def _key_of(word: str) -> str | None:
    """The key that is called so, in whatever section; None where there is none, or where it is a
    file that says it."""
    known = [*dict.fromkeys(key.partition(".")[0] for key in known_keys()), *known_keys()]
    if word in known:
        return word
    alike = (key for key in known if key.rpartition(".")[2] == word)
    return None if word in OF_FILES else next(alike, None)


def _takes(command: str, known: Mapping[str, str]) -> str:
    flags = "".join(f", {flag} {example}".rstrip() for flag, example in known.items())
    word = "model=FOLDER" if command == "init" else "lora.rank=8"
    return f"It takes words such as {word}{flags}; `lorascope {command} --help` shows more."


def grid_points(
    command: str,
    arguments: Sequence[str],
    flags: Mapping[str, str],
    one_study: bool,
    layout: Layout,
) -> tuple[list[Config], dict[str, str], list[str]]:
    """The points of the grid of params.yaml, with the overrides among `arguments` in place of its
    axes; the command's own `flags`, and those overrides.

    Args:
        one_study: whether it can look at one model, one dataset and one rule only.
    """
    given = own_flags(command, arguments, flags)
    overrides = [*recipe_axes(given.overrides, layout), *given.overrides]
    if one_study:
        _refuse_several(command, overrides, layout)
    configs = expand(layout, with_overrides(declared_overrides(layout), overrides))
    return configs, given.flags, overrides


def _refuse_several(command: str, overrides: Sequence[str], layout: Layout) -> None:
    for override in read_overrides(overrides, layout):
        key = override.key_or_group
        if override.is_sweep_override() and key.partition(".")[0] in ONE_OF:
            raise LorascopeError(
                f"{override.input_line}: {command} looks at one {key} at a time. Name one, and run "
                "it again for each other."
            )


def run_stage(
    command: str, arguments: Sequence[str], can_sweep: bool, layout: Layout, run: Run
) -> None:
    """`run` the points that a stage's command line asks for, judged before the first one starts.

    What it does not say is what params.yaml says, of the keys that the stage reads.
    """
    arguments = [one for one in arguments if one != PACKED]
    given = take_apart(arguments)
    refuse_foreign_flags(command, given.flags, arguments)
    if given.sweeps and not can_sweep:
        raise LorascopeError(f"{command} runs one configuration: leave out -m.")
    asks_hydra = any(is_hydra(one) for one in read_overrides(given.overrides, layout))
    declared = [text for text in declared_overrides(layout) if group_of(text) in READS[command]]
    axes = recipe_axes(given.overrides, layout)
    typed = [*(text for text in axes if group_of(text) in READS[command]), *given.overrides]
    overrides = with_overrides(declared, typed)
    if not given.asks_only:
        if not given.sweeps:
            refuse_sweep(command, read_overrides(overrides, layout), can_sweep, typed)
        configs = expand(layout, overrides)
        if len(recipe_parts(typed, layout)) > 1 and can_sweep:
            _refuse_parts(command, asks_hydra, given.sweeps)
        if not can_sweep:
            _require_one_point(command, configs)
        if not asks_hydra:
            run(configs)
            return
    added = [text for text in overrides if text not in given.overrides]
    if not given.sweeps:
        read = zip(added, read_overrides(added, layout), strict=True)
        added = [text for text, override in read if not override.is_sweep_override()]
    _run_by_hydra(command, [*arguments, *added], layout, run)


def _refuse_parts(command: str, asks_hydra: bool, sweeps: bool) -> None:
    """A recipe of several grids is a study: `command` sweeps over it, and Hydra knows one grid."""
    if asks_hydra:
        raise LorascopeError(
            f"{command}: this recipe has several parts, which Hydra's launchers do not know. Leave "
            "hydra's settings out."
        )
    if not sweeps:
        raise LorascopeError(
            f"{command}: this recipe has several parts, and without -m {command} runs one "
            "configuration. Add -m."
        )


def _require_one_point(command: str, configs: Sequence[Config]) -> None:
    """Raise where a recipe's parts differ in what a command reads that takes one configuration."""
    for group in READS[command]:
        found = {
            repr(own := getattr(one, group, None)): getattr(own, "name", "") for one in configs
        }
        if len(found) == 1:
            continue
        names = list(dict.fromkeys(found.values()))
        if len(names) == 1:
            raise LorascopeError(
                f"{command}: the parts of this recipe differ in settings of {group}, and this "
                f"command takes one configuration. Give each a file of conf/{group}, and name it."
            )
        raise LorascopeError(
            f"{command}: this recipe has several of {group} ({', '.join(names)}), and this "
            f"command takes one. Run it once for each, as {group}={names[0]}."
        )


def _run_by_hydra(command: str, arguments: Sequence[str], layout: Layout, run: Run) -> None:
    """Hydra shows what is asked for, or hands `run` one point a job."""

    def job(composed: DictConfig) -> None:
        run([object_of(composed, layout)])

    register_schema()
    # Hydra makes it too, but shows a stack where it cannot.
    layout.hydra.mkdir(parents=True, exist_ok=True)
    sys.argv = [f"lorascope {command}", *arguments]
    # Else Hydra prints stacks itself, of files that are no YAML too.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with plain_errors(layout):
        hydra.main(version_base="1.3", config_path=str(layout.conf), config_name="config")(job)()
