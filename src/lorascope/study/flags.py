"""What begins with a dash on the command line of a stage: Hydra's own flags, as far as they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorascope.errors import LorascopeError

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


@dataclass(frozen=True)
class Arguments:
    """A stage's command line, taken apart."""

    flags: list[str]
    """Without their values."""
    overrides: list[str]

    @property
    def sweeps(self) -> bool:
        return any(flag in SWEEP for flag in self.flags)

    @property
    def asks_only(self) -> bool:
        return any(flag in SHOW for flag in self.flags)


def take_apart(arguments: Sequence[str]) -> Arguments:
    """Flags and overrides; the word after a flag that takes one is neither."""
    flags: list[str] = []
    overrides: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag, equals, _ = word.partition("=")
        flags.append(flag)
        takes_next = flag in VALUED or (flag in INFO and left[:1] and left[0] in INFO_WORDS)
        if takes_next and not equals:
            del left[:1]
    return Arguments(flags, overrides)


def refuse_foreign_flags(command: str, flags: Sequence[str]) -> None:
    """Raise for a flag that Hydra would misunderstand, or that leads out of conf/."""
    for flag in flags:
        if flag in OTHER_FOLDERS:
            raise LorascopeError(
                f"{command}: {flag} is not supported, as stages, records and DVC know this "
                "project's conf/ alone. Put the file into conf/<group>/ and choose it: group=name."
            )
        if flag not in (*SWEEP, *SHOW, *WITH_SHOWN):
            raise LorascopeError(
                f"{command}: unknown flag {flag}. It takes key=value, -m to sweep, and --help."
            )


def split_flags(
    command: str, arguments: Sequence[str], known: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """A command's own flags with their values, and the Hydra overrides between them.

    Args:
        known: each flag with an example of its value; empty for one that takes no value.

    Raises:
        LorascopeError: a flag is unknown, or lacks its value.
    """
    flags: dict[str, str] = {}
    overrides: list[str] = []
    left = list(arguments)
    while left:
        word = left.pop(0)
        if not word.startswith("-"):
            overrides.append(word)
            continue
        flag, equals, value = word.partition("=")
        takes = known.get(flag)
        if takes is None or (equals and not takes):
            raise LorascopeError(f"{command}: unknown flag {word}. {_takes(known)}")
        if takes and not equals:
            if not left or left[0].startswith("-"):
                raise LorascopeError(f"{command}: {flag} lacks its value. {_takes(known)}")
            value = left.pop(0)
        flags[flag] = value
    return flags, overrides


def _takes(known: Mapping[str, str]) -> str:
    flags = "".join(f", {flag} {example}".rstrip() for flag, example in known.items())
    return (
        f"It takes Hydra overrides, such as lora.rank=8 for ranks and quant=nf4 for a mode{flags}; "
        "`lorascope --help` shows more."
    )


def refuse_arguments(command: str, arguments: Sequence[str]) -> None:
    """Raise where a command that takes nothing is given something."""
    if arguments:
        raise LorascopeError(
            f"{command}: {arguments[0]} would be ignored: it takes no settings. "
            f"Run `lorascope {command}` alone."
        )
