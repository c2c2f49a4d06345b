"""The data card: what a prepared split holds, counted in tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lorascope.config import DataConfig
from lorascope.data.tokenization import IGNORED_LABEL
from lorascope.errors import DataError
from lorascope.layout import SPLITS
from lorascope.records import SplitCard
from lorascope.store import sha256_of_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PERCENTILES = (0, 50, 90, 99, 100)
WARN_UNKNOWN_SHARE = 0.01


@dataclass(frozen=True)
class SampleCount:
    """One sample, counted."""

    tokens: int
    trained: int
    unknown: int
    eos_trained: bool


def count_sample(
    input_ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerBase
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


def summarise_split(split: str, samples: Sequence[SampleCount], path: Path) -> SplitCard:
    """The card of one written split.

    Raises:
        DataError: a sample trains nothing, or does not end with a trained end-of-text token.
    """
    tokens = sum(sample.tokens for sample in samples)
    eos_share = sum(sample.eos_trained for sample in samples) / len(samples)
    idle = sum(sample.trained == 0 for sample in samples)
    if idle or eos_share < 1:
        raise DataError(
            f"{split}: {idle} of {len(samples)} samples train no token, and {eos_share:.1%} end "
            "with a trained end-of-text token, where all must: a model would not learn its "
            "answers, or not to stop. The tokenizer does not read its own eos_token as one token: "
            "check eos_token in its tokenizer_config.json."
        )
    lengths = np.percentile([s.tokens for s in samples], PERCENTILES, method="nearest")
    return SplitCard(
        rows=len(samples),
        sha256=sha256_of_file(path),
        tokens=tokens,
        trained_tokens=sum(sample.trained for sample in samples),
        length_percentiles_tokens={
            f"p{p}": int(length) for p, length in zip(PERCENTILES, lengths, strict=True)
        },
        eos_trained_share=eos_share,
        unknown_token_share=sum(sample.unknown for sample in samples) / tokens,
    )


def warnings_of(splits: Mapping[str, SplitCard], cut_questions: int) -> list[str]:
    """What a person should know before training on this."""
    warnings = [
        f"{split}: {card.unknown_token_share:.1%} of the tokens are unknown to the model's "
        "tokenizer: it cannot read or write them. Use a model whose tokenizer covers this text."
        for split, card in splits.items()
        if card.unknown_token_share > WARN_UNKNOWN_SHARE
    ]
    if cut_questions:
        warnings.append(
            f"{cut_questions} conversations end with a question without a reply: that last "
            "question was left out."
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
