"""The answers of what is loaded, with a trial's adapter or without one, kept in a folder."""

from __future__ import annotations

import time
from collections.abc import Sequence

from lorascope.config import Config
from lorascope.data.rows import PreparedRow, read_rows
from lorascope.files.layout import EXAMPLES_FILE, Layout
from lorascope.files.provenance import capture
from lorascope.files.replacing import replaced_folder
from lorascope.files.store import read_record, sha256_of_file, write_record
from lorascope.records import BaseRecord, Example, ExamplesRecord, TrialRecord
from lorascope.scoring.evaluation import LoadedBase
from lorascope.scoring.examples import write_examples
from lorascope.scoring.generation import Writing, Written, write, writes
from lorascope.scoring.lm_eval_model import encode, generation_prompts

SPLIT = "test"
"""Whose prompts are shown: its items are scored once, and choose nothing."""


def keep_examples(
    config: Config, layout: Layout, name: str, identity: str, trial: TrialRecord | None
) -> bool:
    """Have the loaded base, with the adapter of `trial` where there is one, answer test prompts,
    and keep what it says; False where it writes no text. A prompt that fills the model's context is
    left out."""
    if not writes(LoadedBase.model):
        return False
    started, asked = time.perf_counter(), config.evaluate
    rows = read_rows(layout.data(config.model.name, config.data.name) / f"{SPLIT}.jsonl")
    context = read_record(layout.base(config.model.name), BaseRecord).context_tokens
    how = Writing(asked.example_tokens, asked.example_temperature)
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter" if trial else None
    tokenizer = LoadedBase.tokenizer
    with LoadedBase.adapted(adapter) as model:
        examples = []
        for row in chosen_rows(rows, asked.examples, tokenizer.all_special_tokens):
            (prompt,) = generation_prompts(tokenizer, [row])
            if len(encode(tokenizer, [prompt])[0]) < context:
                written = write(model, tokenizer, prompt, how, context)
                examples.append(_example(row, tokenizer.eos_token, written))
    with replaced_folder(layout.examples(config.quant.name) / name) as folder:
        write_examples(folder, examples)
        record = ExamplesRecord(
            name=name,
            identity=identity,
            quant=config.quant.name,
            trial_identity=trial.identity if trial else None,
            examples=len(examples),
            longest_tokens=how.longest_tokens,
            temperature=how.temperature,
            examples_sha256=sha256_of_file(folder / EXAMPLES_FILE),
            seconds=time.perf_counter() - started,
            provenance=capture(
                layout, LoadedBase.device_name, LoadedBase.threads, config.runtime.deterministic
            ),
        )
        write_record(folder, record)
    return True


def chosen_rows(
    rows: Sequence[PreparedRow], count: int, special_tokens: Sequence[str] = ()
) -> list[PreparedRow]:
    """Rows to show, the same ones for all that are scored on a split: of those that ask something
    the first by the hash of their content, as neighbours in a file are often of one kind. What
    several rows ask is shown once.

    Args:
        special_tokens: the tokenizer's, which ask nothing by themselves.
    """
    asked: dict[str, PreparedRow] = {}
    for row in sorted(rows, key=lambda row: row.item):
        words = row.prompt
        for token in special_tokens:
            words = words.replace(token, "")
        if words.strip():
            asked.setdefault(row.prompt, row)
    return list(asked.values())[:count]


def _example(row: PreparedRow, end: str, written: Written) -> Example:
    return Example(
        item=row.item,
        prompt=row.prompt,
        reference=row.completion.removesuffix(end).strip(),
        text=written.text,
        tokens=written.tokens,
        ended=written.ended,
    )
