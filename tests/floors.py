"""Constraints that pin each dependency to its floor in pyproject.toml: `python -m tests.floors`.

`make test-floor` installs by them and runs the suite. Names with a version on the command line
replace a floor: `python -m tests.floors torch==2.13.0`, where the floor cannot be installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
FLOOR = re.compile(r"(?P<name>[\w.-]+)>=(?P<floor>[\w.]+)")


def floors(replaced: Sequence[str] = ()) -> list[str]:
    """A constraint for each dependency of the package itself, as pip reads them.

    Args:
        replaced: constraints that take the place of the floor of the same name.

    Raises:
        ValueError: a dependency names no floor.
    """
    others = {text.partition("==")[0]: text for text in replaced}
    found = []
    for text in tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]:
        stated = FLOOR.match(text)
        if stated is None:
            raise ValueError(f"pyproject.toml: {text!r} has no floor. Write it as name>=version.")
        name = stated["name"]
        found.append(others.get(name, f"{name}=={stated['floor']}"))
    return found


if __name__ == "__main__":
    print("\n".join(floors(sys.argv[1:])))
