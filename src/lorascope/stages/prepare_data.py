"""prepare-data: data/<data>/<model>/{train,validation,test}.jsonl with their card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lorascope.config import Config, DataConfig, Scoring
from lorascope.config.rules import require_one_population, require_rows_for_head
from lorascope.data.answers import require_room
from lorascope.data.prepare import prepare_data
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer, require_known_tokens
from lorascope.files.layout import FORGETTING, SPLITS, Layout
from lorascope.files.made_with import data_settings
from lorascope.files.provenance import capture
from lorascope.files.replacing import replaced_folder
from lorascope.files.store import write_record
from lorascope.machine.progress import StepProgress
from lorascope.records import BaseRecord, DataCard, SplitCard
from lorascope.study.intact import read_base, require_base


def command(configs: Sequence[Config], layout: Layout, *_: object) -> DataCard:
    """Prepare the dataset for the model and write it as a whole, or not at all."""
    config = configs[0]
    require_one_population(config)
    require_rows_for_head(config)
    require_base(config, layout)
    base = layout.base(config.model.name)
    record = read_base(config, layout)
    tokenizer = load_tokenizer(base, config.model.trust_remote_code)
    with replaced_folder(layout.data(config.model.name, config.data.name)) as folder:
        if config.forgetting is not None:
            (folder / FORGETTING).mkdir()
            _write(config.forgetting, config, layout, record, tokenizer, folder / FORGETTING)
        card = _write(config.data, config, layout, record, tokenizer, folder)
        if config.data.scoring is Scoring.answer:
            _judge_room(config, folder, tokenizer, record.context_tokens)
    print(_summary(card))
    if config.forgetting is not None:
        splits = " and ".join(config.forgetting.kept_splits)
        print(f"what may be forgotten: {config.forgetting.name}, {splits}")
    return card


def _write(
    data: DataConfig, config: Config, layout: Layout, base: BaseRecord, tokenizer: Any, folder: Path
) -> DataCard:
    """Write the rows of one dataset, and their card."""
    card = prepare_data(
        data,
        config.model.name,
        tokenizer,
        base.context_tokens,
        folder,
        layout.root,
        # Tokenizing runs on the CPU, in this process alone.
        capture(layout, "cpu", 1),
        StepProgress(f"data {data.name}", unit="rows"),
    )
    for split in SPLITS:
        require_known_tokens(read_rows(folder / f"{split}.jsonl"), tokenizer, base.vocabulary)
    card = replace(card, settings=data_settings(data))
    write_record(folder, card)
    return card


def _judge_room(config: Config, folder: Path, tokenizer: Any, context_tokens: int) -> None:
    """Here and not at evaluation: by then, hours of training may lie behind."""
    rows = [row for split in ("validation", "test") for row in read_rows(folder / f"{split}.jsonl")]
    warning = require_room(rows, tokenizer, config.evaluate.max_new_tokens, context_tokens)
    if warning:
        print(f"warning: {warning}", file=sys.stderr)


def _summary(card: DataCard) -> str:
    """Three lines: rows, tokens, drops."""
    rows = ", ".join(f"{_rows(card.splits[split])} {split}" for split in SPLITS)
    train = card.splits["train"]
    lengths = train.length_percentiles_tokens
    dropped = ", ".join(f"{n} {reason}" for reason, n in card.dropped_rows.items()) or "none"
    return (
        f"{card.name} for {card.model}: {rows} ({card.rows_read} rows read)\n"
        f"train: {train.tokens} tokens, {train.trained_tokens / train.tokens:.0%} trained; "
        f"a sample has {lengths['p50']} (median) to {lengths['p100']} tokens "
        f"({card.max_tokens} allowed)\n"
        f"dropped rows: {dropped}"
    )


def _rows(split: SplitCard) -> str:
    """80, or of pairs that share prompts: 80 (52 prompts)."""
    shared = split.prompts is not None and split.prompts < split.rows
    return f"{split.rows} ({split.prompts} prompts)" if shared else str(split.rows)
