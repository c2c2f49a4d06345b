"""The data card: what a prepared split holds, counted in tokens."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lorascope.config import DataConfig
from lorascope.data.conversations import Conversation
from lorascope.data.rows import PreparedRow
from lorascope.data.templates import Template, turn_text
from lorascope.data.tokenization import IGNORED_LABEL, Tokenizer
from lorascope.data.unfit_rows import RowError, by_count
from lorascope.files.layout import SPLITS
from lorascope.files.store import sha256_of_file
from lorascope.records import SplitCard

PERCENTILES = (0, 50, 90, 99, 100)
WARN_UNKNOWN_SHARE = 0.01
WARN_LENGTH_SHARE = 0.7
"""Share of pairs from which on length is worth a warning, either way."""
FEW_OF_A_CLASS = 10
"""Rows of a class below which a split says little of it: with all 9 right, a 95 % interval of its
recall begins at 70 %."""


@dataclass(frozen=True)
class SampleCount:
    """Token counts of one sample."""

    tokens: int
    trained: int
    unknown: int
    eos_trained: bool


@dataclass(frozen=True)
class KeptRow:
    """A row that was kept, and the tokens of its sample; of a pair, of both replies."""

    row: PreparedRow
    sample: SampleCount
    rejected: SampleCount | None = None

    @property
    def samples(self) -> list[SampleCount]:
        """Of each sequence."""
        return [self.sample] if self.rejected is None else [self.sample, self.rejected]


def count_sample(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: Tokenizer
) -> SampleCount:
    """Count one tokenized sample. A tokenizer whose unknown token doubles as end or start of text
    (GPT-2) falls back to bytes, and has no unknown tokens."""
    eos, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    counted = unknown is not None and unknown not in (eos, tokenizer.bos_token_id)
    return SampleCount(
        tokens=len(input_ids),
        trained=sum(label != IGNORED_LABEL for label in labels),
        unknown=sum(token == unknown for token in input_ids) if counted else 0,
        eos_trained=labels[-1] == eos,
    )


def require_trained(sample: SampleCount, place: str) -> None:
    """Raise RowError for a sample from which a model would not learn its answer, or not to stop."""
    if sample.trained == 0 or not sample.eos_trained:
        raise RowError(
            place, "no trained end-of-text token at its end",
            f"{sample.trained} of its {sample.tokens} tokens are trained, and it does not end with "
            "a trained end-of-text token: the tokenizer does not read its own eos_token as one "
            "token there. Check eos_token in its tokenizer_config.json, or remove this row.",
        )  # fmt: skip


def summarise_split(kept: Sequence[KeptRow], path: Path) -> SplitCard:
    """The card of one written split."""
    samples = [sample for one in kept for sample in one.samples]
    choices = [len(one.row.choices) for one in kept if one.row.choices]
    pairs = [(one.sample.trained, one.rejected.trained) for one in kept if one.rejected]
    tokens = sum(sample.tokens for sample in samples)
    lengths = np.percentile([s.tokens for s in samples], PERCENTILES, method="nearest")
    return SplitCard(
        rows=len(kept),
        sha256=sha256_of_file(path),
        tokens=tokens,
        trained_tokens=sum(sample.trained for sample in samples),
        length_percentiles_tokens={
            f"p{p}": int(length) for p, length in zip(PERCENTILES, lengths, strict=True)
        },
        eos_trained_share=sum(sample.eos_trained for sample in samples) / len(samples),
        unknown_token_share=sum(sample.unknown for sample in samples) / tokens,
        chance_accuracy=sum(1 / count for count in choices) / len(choices) if choices else None,
        most_trained_tokens=max(sample.trained for sample in samples),
        chosen_longer_share=sum(a > b for a, b in pairs) / len(pairs) if pairs else None,
        rejected_longer_share=sum(a < b for a, b in pairs) / len(pairs) if pairs else None,
        prompts=len({one.row.prompt for one in kept}) if pairs else None,
        chosen_more_tokens=sum(a - b for a, b in pairs) / len(pairs) if pairs else None,
    )


@dataclass
class Remarks:
    """Remarks on the rows that were kept."""

    cut_questions: int
    read_replies: int = 0
    """Replies before the last one that a template writes otherwise as history."""
    special_tokens: Counter[str] = field(default_factory=Counter)
    """Special token -> rows whose own text holds it."""
    first_special: str = ""
    """Place of the first such row."""
    unread: Counter[str] = field(default_factory=Counter)
    """Key of messages that no format reads -> rows that have it."""
    scored: int = 0
    """Rows of validation and test that are scored by their answers."""
    unreadable: list[str] = field(default_factory=list)
    """Answers of these rows that the tokenizer cannot give back."""

    def note(self, conversation: Conversation, row: PreparedRow, template: Template) -> None:
        """Note what is remarkable in one row."""
        self.unread.update(conversation.unread)
        if conversation.rendered is not None:
            # Its text stands in a template, special tokens and all.
            return
        replies = sum(turn.role == "assistant" for turn in conversation.turns)
        self.read_replies += replies - sum(segment.trained for segment in row.segments)
        found = special_tokens_in(conversation, template)
        self.special_tokens.update(found)
        if found and not self.first_special:
            self.first_special = conversation.place


def special_tokens_in(conversation: Conversation, template: Template) -> set[str]:
    """Special tokens in what people wrote, except for one end token at a reply's end, which
    templates take for the reply's own."""
    if not template.special_tokens:
        return set()
    pattern = "|".join(map(re.escape, template.special_tokens))
    texts = [turn_text(turn, template.eos) for turn in conversation.turns]
    texts += conversation.choices or ()
    texts += () if conversation.rejected is None else (conversation.rejected,)
    return {found for text in texts for found in re.findall(pattern, text)}


def warnings_of(splits: Mapping[str, SplitCard], remarks: Remarks, template: Template) -> list[str]:
    """Warnings that a person should read before training on these splits."""
    strange = {split: card.unknown_token_share for split, card in splits.items()}
    strange = {split: share for split, share in strange.items() if share > WARN_UNKNOWN_SHARE}
    most = f"{'up to ' if len(strange) > 1 else ''}{max(strange.values(), default=0):.1%}"
    warnings = [
        f"{', '.join(strange)}: {most} of the tokens are unknown to the model's tokenizer: it "
        "cannot read or write them. Use a model whose tokenizer covers this text."
    ] * bool(strange)
    warnings += _class_warnings(splits)
    if is_biased(splits["train"]):
        warnings.append(length_bias(splits["train"]))
    if remarks.cut_questions:
        warnings.append(
            f"{remarks.cut_questions} conversations end with a question without a reply: that last "
            "question was left out."
        )
    if remarks.special_tokens:
        warnings.append(
            "The text of some rows holds special tokens of the tokenizer (rows by token: "
            f"{by_count(remarks.special_tokens)}; one is {remarks.first_special}), which the "
            "model reads as starts, ends and roles, not as text. Reword them where they are meant "
            "as text."
        )
    if remarks.unread:
        warnings.append(
            f"Messages hold keys that are not read (rows by key: {by_count(remarks.unread)}). "
            "Write their values into the content if the model is to learn it."
        )
    return [*warnings, *_reply_warnings(remarks, template)]


def _class_warnings(splits: Mapping[str, SplitCard]) -> Iterator[str]:
    """Classes that a split hardly shows, or not at all."""
    for split, card in splits.items():
        rows = card.class_rows or {}
        missing = [repr(name) for name, count in rows.items() if count == 0]
        few = Counter({name: n for name, n in rows.items() if 0 < n < FEW_OF_A_CLASS})
        trains = split == "train"
        if missing:
            left = "no trial learns it" if trains else "no score shows whether a trial knows it"
            yield (
                f"{split}: no row is of class {', '.join(missing)}, so that {left}. Put such rows "
                "there, or take the class out of data.classes."
            )
        if few:
            left = "little of them is learnt" if trains else "their F1 says little"
            yield (
                f"{split}: classes with fewer than {FEW_OF_A_CLASS} rows (rows by class: "
                f"{by_count(few)}), so that {left}. Put more of them there."
            )


def is_biased(card: SplitCard) -> bool:
    """Whether the chosen reply is longer, or is not, in so many pairs that length alone tells them
    apart."""
    shares = card.chosen_longer_share, card.rejected_longer_share
    return any(share is not None and share >= WARN_LENGTH_SHARE for share in shares)


def length_bias(card: SplitCard) -> str:
    """What a card tells of the length of chosen replies."""
    return (
        "train: the chosen reply has more tokens than the rejected one in "
        f"{card.chosen_longer_share:.0%} of the pairs, {card.chosen_more_tokens:+.1f} on average: "
        "a model can tell them apart by length alone. Compare what it writes, not only what it "
        "prefers, or balance the pairs."
    )


def _reply_warnings(remarks: Remarks, template: Template) -> list[str]:
    """Warnings about the replies that are trained and scored."""
    warnings = []
    if remarks.read_replies:
        warnings.append(
            f"{remarks.read_replies} replies before a conversation's last one are read, not "
            "trained: the chat template writes them otherwise once further turns follow."
        )
    if remarks.unreadable:
        warnings.append(
            f"{len(remarks.unreadable)} of {remarks.scored} answers in validation and test, such "
            f"as {remarks.unreadable[0][:60]!r}, count as wrong whatever a model learns: the "
            "tokenizer does not give back the text of the reply. Use a model whose tokenizer "
            "covers it, or reword these answers."
        )
    opening = template.chat.unwritten_opening() if template.chat else ""
    if opening:
        warnings.append(
            f"The chat template opens a reply with {opening!r} at inference, but does not write it "
            "before the replies of this data: trained and scored without it. Serve it so, or write "
            "the replies with their thinking part."
        )
    return warnings


def content_sha256(splits: Mapping[str, SplitCard], config: DataConfig) -> str:
    """The dataset's identity: the split files' bytes, what counts as right, what is trained."""
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split}:{splits[split].sha256}\n".encode())
    scoring = f"{config.scoring.value}\n{config.answer_pattern}\n{config.train_on_prompt}"
    digest.update(scoring.encode())
    return digest.hexdigest()
