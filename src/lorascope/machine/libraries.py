"""Large libraries: imported without the garbage collector, and kept quiet."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


def import_uncollected(*modules: str) -> None:
    """Import the modules that are not imported yet, with the garbage collector off.

    The collector would look through all that they make, again and again, which takes a quarter of
    the import. What exists afterwards is left out of all later collections, so call this before
    anything large is made.
    """
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


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside the block nobody looks for garbage: of a million objects of a large study, which all
    stay, the looks take a tenth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def quiet_libraries() -> None:
    """Keep notices that nobody can act on out of our output, and progress bars out of files."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    # PEFT reads an attribute that transformers 6 will rename.
    renamed = "`is_gradient_checkpointing` is deprecated"
    warnings.filterwarnings("ignore", renamed, FutureWarning)
    # A pack's gradients lie in one matrix, on purpose.
    warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout", UserWarning)
