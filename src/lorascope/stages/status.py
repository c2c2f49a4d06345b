"""status: how far the declared study is, from its records and locks alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lorascope.config import Config
from lorascope.files.layout import Layout
from lorascope.study.grid import with_overrides
from lorascope.study.params import declared_overrides
from lorascope.study.status import sweep_status
from lorascope.study.status_text import status_text


def command(
    configs: Sequence[Config], layout: Layout, flags: Mapping[str, str], overrides: Sequence[str]
) -> None:
    """Print the status of `configs`, the grid of params.yaml with `overrides` in place of its
    axes."""
    composed_from = with_overrides(declared_overrides(layout), overrides)
    status = sweep_status(list(configs), layout, composed_from, list(overrides))
    print(status_text(status), end="")
