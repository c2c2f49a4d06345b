"""inventory: what dvc.yaml of a study outside a clone knows the installed lorascope by."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically
from lorascope.starting.wiring import present_wiring, write_inventory

WIRING = "dvc.yaml"


def command(
    _: Sequence[object], layout: Layout, flags: Mapping[str, str], words: Sequence[str]
) -> None:
    """Write experiments/inventory; with the word dvc.yaml, write that anew for this release.

    Raises:
        LorascopeError: another word was given.
    """
    present = present_wiring()
    if list(words) == [WIRING]:
        write_atomically(layout.root / WIRING, present.encode())
        print(f"wrote {WIRING}")
    elif words:
        raise LorascopeError(
            f"inventory: {words[0]} would be ignored. It takes nothing, or the word {WIRING}, to "
            "write that file anew."
        )
    write_inventory(layout)
    if (layout.root / WIRING).read_text(encoding="utf-8") != present:
        print(
            f"warning: {WIRING} is not the one that this lorascope writes: it is of another "
            f"release, or was changed. `lorascope inventory {WIRING}` writes it anew.",
            file=sys.stderr,
        )
