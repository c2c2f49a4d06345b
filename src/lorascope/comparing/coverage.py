"""How much of a model its modes quantize and its adapters reach: what is left must be named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lorascope.adapters.targets import unadapted_sentences
from lorascope.records import FootprintRecord, Study

PARTIAL_SHARE = 0.9
"""Of the weights in matrices: a mode that quantizes less is named as one that does."""


def coverage(study: Study) -> Iterator[str]:
    """Sentences on modes that leave much in 16 bits, and on matrices that no adapter reaches."""
    yield from partial_modes(study.footprints)
    yield from unadapted_sentences(study.base.linear_shapes, study.base.unadapted)


def partial_modes(footprints: Iterable[FootprintRecord]) -> Iterator[str]:
    """A sentence for each mode that quantizes little."""
    for footprint in footprints:
        share = footprint.quantized_share
        if share is not None and share < PARTIAL_SHARE:
            yield (
                f"The mode {footprint.quant} quantizes {100 * share:.2g} % of the weights in this "
                "model's matrices; experts and what else is no plain linear layer stay in 16 bits."
            )
