"""A command line taken apart: overrides, and flags, which begin with a dash. Stages take Hydra's,
as far as they fit, other commands their own."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
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


def refuse_foreign_flags(command: str, flags: Mapping[str, str]) -> None:
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


def own_flags(command: str, arguments: Sequence[str], known: Mapping[str, str]) -> Arguments:
    """The arguments of a command that has flags of its own.

    Args:
        known: each flag with an example of its value; empty for one that takes no value.

    Raises:
        LorascopeError: a flag is unknown, or lacks its value.
    """
    given = take_apart(arguments, [flag for flag, example in known.items() if example])
    for flag, value in given.flags.items():
        if flag not in known or (value and not known[flag]):
            word = f"{flag}={value}" if value else flag
            raise LorascopeError(f"{command}: unknown flag {word}. {_takes(known)}")
        if known[flag] and (not value or value.startswith("-")):
            raise LorascopeError(f"{command}: {flag} lacks its value. {_takes(known)}")
    return given


def _takes(known: Mapping[str, str]) -> str:
    flags = "".join(f", {flag} {example}".rstrip() for flag, example in known.items())
    return (
        f"It takes Hydra overrides, such as lora.rank=8 for ranks and quant=nf4 for a mode{flags}; "
        "`lorascope --help` shows more."
    )
