"""How the page is to be read: what its numbers are."""

from __future__ import annotations

from lorascope.reporting.pages.document import Line


def how_to_read(scoring: str) -> tuple[Line, ...]:
    """Sentences for people; `scoring` says whose loss and divergence the numbers are."""
    kind = scoring if scoring in LOSS else TEXTS
    return (
        *BEFORE,
        (f"{FLIPS} {DIVERGENCE.get(kind, DIVERGENCE[TEXTS])}",),
        (f"{LOSS[kind]} {SIZES}",),
        *AFTER,
    )


TEXTS = "texts"
"""Rows with a completion."""
FLIPS = "Gained and lost are items that only the first, or only the second, of a pair gets right."
DIVERGENCE = {
    TEXTS: "KL is the mean divergence a token from the second's next-token distribution, over the "
    "first 1,024 completion tokens of the test split; with more than 512 tokens in the "
    "vocabulary it is a lower bound.",
    "classes": "KL is the mean divergence an item from the probabilities that the second gives the "
    "classes.",
}
LOSS = {
    TEXTS: "Loss is the mean over completion tokens, in nats; lower is better.",
    "classes": "Loss is the mean cross-entropy of an item's class, in nats; lower is better.",
    "preference": "Loss is the mean over the tokens of chosen replies, in nats; lower is better.",
}
"""By data.scoring, where rows are no completions."""
SIZES = (
    "1 GB is 10^9 bytes; stored sizes are exact bytes of tensors. Serving memory is the stored "
    "base of a mode and the adapter beside it; of a served form, the merged model as that mode "
    "stores it."
)
BEFORE: tuple[Line, ...] = (
    ("A blank cell is unknown or was not measured; it is never zero.",),
    (
        "The rule and every ranking look at the validation split. The test split is scored once "
        "for every row and chooses nothing.",
    ),
    (
        "A 95 % interval covers which items were drawn, and the training seed where there are "
        "several. It does not cover the choice of this dataset. Where there "
        "are several seeds, a comparison whose own spread between them is smaller than that of all "
        "comparisons of its kind takes theirs. Intervals are not corrected for their number; p "
        "values and verdicts are.",
    ),
    (
        "Verdicts: better and worse are significant at 5 % after Holm's correction; no worse "
        "means that a loss as large as the margin is ruled out; undecided is all else, and no "
        "evidence of equality.",
    ),
)
AFTER: tuple[Line, ...] = (
    (
        "Seconds, and money and energy made of them, are of trainings on a machine that may have "
        "had other work: a share on their frontier leaves that out.",
    ),
    (
        "Peak is the allocator's on CUDA, growth that of the process on a CPU: compare each with "
        "its own kind only.",
    ),
    (
        "Bits measured has the constants and code tables in it; bits from shapes is the same "
        "computed without a tensor; bits, large layers is what remains where layers are large.",
    ),
    (
        "Weight error is sqrt(mean((w - q)^2) / mean(w^2)) against the full-precision base, over "
        "layers.",
    ),
)
