"""Imports of large libraries, without the garbage collector: it would look through all that they
make, again and again, which takes a quarter of their time."""

from __future__ import annotations

import gc
import sys
from importlib import import_module


def import_uncollected(*modules: str) -> None:
    """Import what is not there yet. What exists afterwards is left out of all later collections, so
    call it before anything large is made."""
    if all(name in sys.modules for name in modules):
        return
    before = gc.isenabled()
    gc.disable()
    try:
        for name in modules:
            import_module(name)
    finally:
        gc.freeze()
        if before:
            gc.enable()
