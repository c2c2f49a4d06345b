"""One row on a terminal, with what is trained of it in colour, or between marks."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import IGNORED_LABEL, Tokenizer, tokenize_row

SHOWN_CHARACTERS = 600
"""Of a row: its beginning and its end, half of them each."""
IN_COLOUR = ("\x1b[32m", "\x1b[0m")
BETWEEN_MARKS = ("⟦", "⟧")


@dataclass(frozen=True)
class TrainedSpans:
    """Which characters of a row's text are trained."""

    text: str
    tokens: int
    trained_tokens: int
    spans: list[tuple[int, int]]
    """(first character, one behind the last) of each stretch, in order."""


def trained_spans(row: PreparedRow, tokenizer: Tokenizer, train_on_prompt: bool) -> TrainedSpans:
    """The stretches whose tokens carry a label, as training reads them."""
    ids, labels = tokenize_row(row, tokenizer, train_on_prompt)
    encoded = tokenizer(row.text, add_special_tokens=False, return_offsets_mapping=True)
    spans: list[tuple[int, int]] = []
    before = False
    for label, (start, end) in zip(labels, encoded["offset_mapping"], strict=True):
        trained = label != IGNORED_LABEL
        if trained and before:
            # Blanks between two trained tokens belong to neither.
            spans[-1] = (spans[-1][0], end)
        elif trained:
            spans.append((start, end))
        before = trained
    count = sum(label != IGNORED_LABEL for label in labels)
    return TrainedSpans(row.text, len(ids), count, spans)


def marked(found: TrainedSpans, marks: tuple[str, str]) -> str:
    """The text with `marks` around what is trained, its middle left out where it is long, and
    control characters written out: a row must not steer the terminal."""
    opening, closing = marks
    half = SHOWN_CHARACTERS // 2
    length = len(found.text)
    hidden = range(half, length - half) if length > SHOWN_CHARACTERS else range(0)
    trained = {place for start, end in found.spans for place in range(start, end)}
    parts: list[str] = []
    inside = False
    for place, character in enumerate(found.text):
        if place in hidden:
            if place == hidden.start:
                parts.append(f"{closing if inside else ''} [... {len(hidden):,} characters ...] ")
                inside = False
            continue
        if (place in trained) is not inside:
            inside = not inside
            parts.append(opening if inside else closing)
        parts.append(_visible(character))
    return "".join(parts) + (closing if inside else "")


def _visible(character: str) -> str:
    if character in "\n\t" or character.isprintable():
        return character
    return character.encode("unicode_escape").decode() if ord(character) <= 0x9F else character
