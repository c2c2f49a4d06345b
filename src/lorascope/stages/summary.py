"""summary: the answer and its scores, for the end of `make repro`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorascope.config import Config
from lorascope.files.kept import keeping, kept
from lorascope.files.layout import Layout
from lorascope.machine.forks import Forked
from lorascope.machine.libraries import uncollected
from lorascope.study.kept_summary import files_stamp, keep_summary, kept_summary, points_key

if TYPE_CHECKING:
    from lorascope.study.declared import DeclaredTrial


def command(_: Sequence[Config], layout: Layout, __: object, words: Sequence[str]) -> None:
    """Print the summary of the declared grid: the last one, where nothing changed since."""
    stamp = files_stamp(layout, words)
    text = kept_summary(layout, stamp)
    if text is None:
        text = _made(layout, words)
        keep_summary(layout, stamp, text)
    print(text)


def _made(layout: Layout, words: Sequence[str]) -> str:
    with uncollected():
        # Points are composed while the rest is imported: a thousand take as long.
        composing = Forked(lambda: _declared(words, layout))
        from lorascope.comparing.findings import compare
        from lorascope.reporting.pages.summary import terminal_summary
        from lorascope.study.collect import collect

        with keeping(layout.kept, trusts_times=True):
            # How far predictions lie apart is no part of the answer, and takes longer than all.
            configs, points = composing.result()
            study = collect(configs, layout, distributions=False, points=points)
            return terminal_summary(study, compare(study), layout.reports.relative_to(layout.root))


def _declared(
    words: Sequence[str], layout: Layout
) -> tuple[list[Config], list[list[DeclaredTrial]]]:
    from lorascope.study.declared import declared_points
    from lorascope.study.intact import reading_once

    configs = _points(words, layout)
    with reading_once():
        return configs, declared_points(configs, layout)


def _points(words: Sequence[str], layout: Layout) -> list[Config]:
    def composed() -> list[Config]:
        # It imports Hydra.
        from lorascope.study.request import grid_points

        return grid_points("summary", words, {}, True, layout)[0]

    with keeping(layout.kept_points, trusts_times=False):
        return kept(points_key(layout, words), composed)
