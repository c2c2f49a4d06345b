"""Scores of models through lm-eval, on prepared rows and on its public tasks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from lorascope.config import Scoring
from lorascope.data.rows import PreparedRow
from lorascope.errors import ConfigError, DataError
from lorascope.objectives.evaluation import evaluation_mode
from lorascope.quantizers.loading import arithmetic
from lorascope.records import ItemResult
from lorascope.scoring.classes import RULE, score_classes
from lorascope.scoring.items import UNMOVED
from lorascope.scoring.lm_eval_model import (
    OnProgress,
    Progress,
    encode,
    encode_pairs,
    encoded_as_stock,
    generation_prompts,
    greedy_generation,
    quiet,
    request_pairs,
    splits_collide,
    stopping_at,
    wrap_model,
)
from lorascope.scoring.log_likelihoods import Encoded
from lorascope.scoring.tasks import ANSWER_TASK, CHOICES_TASK, LOSS_TASK, REJECTED_TASK, build_tasks
from lorascope.scoring.token_meter import TokenMeter

# lm-eval's command line uses these seeds: few-shot examples are then the published ones.
PYTHON_SEED, OTHER_SEED = 0, 1234


def score_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[PreparedRow],
    scoring: Scoring,
    answer_pattern: str | None,
    batch_size: int,
    max_new_tokens: int,
    on_progress: OnProgress | None = None,
    meter: TokenMeter | None = None,
) -> list[ItemResult]:
    """Score every row through lm-eval; results stand in the order of `rows`.

    Always: the summed log-likelihood of the completion, end-of-text included, softmax in FP32
    (`loss_nats`, `tokens`). scoring=choices: right where the answer has the highest *summed*
    log-likelihood among the choices, without length normalisation (lm-eval's `acc`); beside it
    stands whether it has the highest a character (`acc_norm`).
    scoring=answer: right where the greedy continuation gives the answer (see `is_right`); penalties
    and sampling that the model's generation config asks for are off. scoring=preference: half
    right on every pair, as a bare base is, until `items.against_base` holds a trial's odds against
    its base's. scoring=loss:
    `correct=None`.

    The hashes are lm-eval's own: SHA-256 of the prompt and of the completion. Training flags and
    generation config are as before afterwards.

    Raises:
        DataError: a row does not fit the model's context.
        ModelError: an evaluation would change a stored layer.
    """
    if scoring is Scoring.classes:
        return score_classes(model, tokenizer, rows, batch_size, on_progress, meter)
    from lm_eval.evaluator import evaluate

    with evaluation_mode(model), greedy_generation(model, tokenizer), quiet():
        tasks = build_tasks(tokenizer, rows, scoring, answer_pattern, max_new_tokens)
        lm = wrap_model(model, tokenizer, batch_size, literal_special_tokens=True)
        encoded = encode_pairs(tokenizer, request_pairs(rows, scoring))
        _check_lengths(encoded, lm.max_length)
        if scoring is Scoring.answer:
            _check_generation(tokenizer, rows, lm.max_length, max_new_tokens)
        lm.logits_cache = not splits_collide(encoded)
        lm.set_cache_hook(Progress(on_progress))
        lm.meter = meter or lm.meter
        results = evaluate(lm, {"tasks": tasks}, bootstrap_iters=0, log_samples=True)
        stock = wrap_model(model, tokenizer, batch_size, literal_special_tokens=False)
        as_stock = encoded_as_stock(stock, rows, encoded, scoring)
    tokens = [len(target) for _, target in encoded]
    return _collect(rows, results["samples"], tokens, as_stock)


def protocol(model: Any, tokenizer: Any, scoring: Scoring, max_new_tokens: int) -> dict[str, str]:
    """The rules of `score_rows` in words, for whoever repeats it; docs/reproducing.md says more."""
    said = {
        "encoding": "prompt and completion together; a token belongs to where it starts; no "
        "special tokens are added, rows hold theirs as text",
        "loss": "summed log-likelihood of the completion, end-of-text included; softmax in float32",
    }
    if scoring is Scoring.classes:
        said = dict(RULE)
    elif scoring is Scoring.choices:
        said["choices"] = (
            "correct: highest summed log-likelihood (lm-eval's acc); correct_norm: highest a "
            "character (acc_norm), the blank before a choice not counted"
        )
    elif scoring is Scoring.preference:
        said["preference"] = (
            "margin_nats: the chosen reply's summed log-likelihood less the rejected one's, both "
            "with end-of-text, less the same of the bare base in the same mode; correct: above 0, "
            "half at 0, as the bare base itself is on every pair"
        )
    elif scoring is Scoring.answer:
        ends = stopping_at(model, tokenizer)
        said["generation"] = (
            f"greedy, at most {max_new_tokens} new tokens, ends at token ids {ends}, without the "
            "penalties and sampling of generation_config.json"
        )
    computing = arithmetic(model)
    if computing is not None:
        said["arithmetic"] = computing
        precision = str(model.dtype).removeprefix("torch.")
        said["loading"] = (
            f"embeddings, norms and head compute in {precision}, 4-bit layers "
            "too: plain transformers leaves them in the 16 bits that they are stored in"
        )
    return said


def run_lm_eval_tasks(
    model: Any, tokenizer: Any, tasks: Sequence[str], batch_size: int
) -> dict[str, float]:
    """Scores on further lm-eval tasks, groups or YAML files: 'task/metric' -> value. ConfigError
    where a task is unknown, or its data cannot be loaded.

    A metric from a named filter reads 'task/metric.filter'. Prompts get the tokenizer's own special
    tokens, few-shot examples lm-eval's own seeds, so that values compare with published ones.
    Indexing the built-in tasks takes about 14 s; their data come from the hub or its cache.
    """
    from lm_eval.evaluator import evaluate

    if not tasks:
        return {}
    with evaluation_mode(model), quiet():
        loaded = _load_tasks(list(tasks))
        random.seed(PYTHON_SEED)
        np.random.seed(OTHER_SEED)
        torch.manual_seed(OTHER_SEED)
        for task in loaded["tasks"].values():
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=OTHER_SEED)
        lm = wrap_model(model, tokenizer, batch_size, literal_special_tokens=False)
        results = evaluate(lm, loaded, bootstrap_iters=0, log_samples=False)
    return {
        f"{task}/{metric.removesuffix(',none').replace(',', '.')}": float(value)
        for task, values in results["results"].items()
        for metric, value in values.items()
        if "," in metric and isinstance(value, (int, float))
    }


def _load_tasks(tasks: list[str]) -> Any:
    from datasets.exceptions import DatasetsError
    from lm_eval.tasks import TaskManager

    builtin = not all(task.endswith((".yaml", ".yml")) for task in tasks)
    try:
        return TaskManager(include_defaults=builtin).load(tasks)
    except KeyError as error:
        raise ConfigError(
            "evaluate.lm_eval_tasks", tasks, f"lm-eval has no such task ({error})",
            "List the names with `lm-eval ls tasks`.",
        ) from error  # fmt: skip
    except (OSError, DatasetsError) as error:
        raise ConfigError(
            "evaluate.lm_eval_tasks", tasks, f"a task's data cannot be loaded ({error})",
            "Run once with a network so that they are cached, or empty the list.",
        ) from error  # fmt: skip


def _check_lengths(encoded: Sequence[Encoded], context_tokens: int) -> None:
    """Refuse rows that are too long: lm-eval would cut them from the left and only warn."""
    longest = max(len(context) + len(target) - 1 for context, target in encoded)
    if longest > context_tokens:
        raise DataError(
            f"a row has {longest} tokens, but the model reads {context_tokens}. Set "
            "data.max_tokens to that or less and prepare the data again."
        )
    if any(not target for _, target in encoded):
        raise DataError(
            "a completion or choice has no tokens of its own: it is empty, or the tokenizer joins "
            "it with its prompt. Check the source rows, or use data.scoring=loss or answer."
        )


def _check_generation(
    tokenizer: Any, rows: Sequence[PreparedRow], context_tokens: int, max_new_tokens: int
) -> None:
    prompts = encode(tokenizer, generation_prompts(tokenizer, rows))
    for row, prompt in zip(rows, prompts, strict=True):
        if len(prompt) + max_new_tokens > context_tokens:
            raise DataError(
                f"item {row.item}: {len(prompt)} prompt tokens and "
                f"evaluate.max_new_tokens={max_new_tokens} exceed the model's context of "
                f"{context_tokens} tokens. Lower evaluate.max_new_tokens to "
                f"{max(context_tokens - len(prompt), 0)} or data.max_tokens."
            )


def _collect(
    rows: Sequence[PreparedRow],
    samples: dict[str, list[dict[str, Any]]],
    tokens: Sequence[int],
    as_stock: Sequence[bool],
) -> list[ItemResult]:
    """Join lm-eval's per-item logs to rows by doc_id, whatever their order."""
    logs = {task: {s["doc_id"]: s for s in logged} for task, logged in samples.items()}
    return [
        ItemResult(
            item=row.item,
            prompt_sha256=logs[LOSS_TASK][index]["prompt_hash"],
            target_sha256=logs[LOSS_TASK][index]["target_hash"],
            correct=_correct(logs, index),
            loss_nats=float(logs[LOSS_TASK][index]["loss_nats"]),
            tokens=tokens[index],
            cluster=row.cluster,
            group=row.group,
            correct_norm=_correct_norm(logs, index),
            stock_encoding=as_stock[index],
            rejected_loss_nats=_rejected_loss_nats(logs, index),
        )
        for index, row in enumerate(rows)
    ]


def _correct(logs: dict[str, dict[int, dict[str, Any]]], index: int) -> bool | float | None:
    """Whether the item is right; None without a rule. A pair is so against the bare base alone."""
    if REJECTED_TASK in logs:
        return UNMOVED
    if CHOICES_TASK in logs:
        return bool(logs[CHOICES_TASK][index]["acc"])
    return bool(logs[ANSWER_TASK][index]["exact_match"]) if ANSWER_TASK in logs else None


def _correct_norm(logs: dict[str, dict[int, dict[str, Any]]], index: int) -> bool | None:
    """The same of choices, by the log-likelihood a character."""
    return bool(logs[CHOICES_TASK][index]["acc_norm"]) if CHOICES_TASK in logs else None


def _rejected_loss_nats(logs: dict[str, dict[int, dict[str, Any]]], index: int) -> float | None:
    """Loss of the reply that was liked less; None where the rows are no pairs."""
    return float(logs[REJECTED_TASK][index]["loss_nats"]) if REJECTED_TASK in logs else None
