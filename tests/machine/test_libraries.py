"""Imports without the garbage collector, which is as it was afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from lorascope.machine.libraries import import_uncollected


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    gc.enable()
    gc.unfreeze()


def test_what_is_imported_is_left_out_of_later_collections() -> None:
    gc.unfreeze()
    import_uncollected("colorsys", "pydoc_data.topics")
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_what_is_there_already_freezes_nothing_that_was_made_since() -> None:
    gc.unfreeze()
    import_uncollected("json", "gc")
    assert gc.get_freeze_count() == 0


def test_a_failed_import_leaves_the_collector_as_it_was() -> None:
    with pytest.raises(ModuleNotFoundError):
        import_uncollected("lorascope.no_such_module")
    assert gc.isenabled()
    gc.disable()
    with pytest.raises(ModuleNotFoundError):
        import_uncollected("lorascope.no_such_module")
    assert not gc.isenabled()
