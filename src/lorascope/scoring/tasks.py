"""Prepared rows as lm-eval tasks: in memory, offline, nothing in the datasets cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorascope.config import Scoring
from lorascope.data.answers import is_right
from lorascope.data.rows import PreparedRow
from lorascope.scoring.lm_eval_model import generation_prompts

LOSS_TASK = "completion_loss"
REJECTED_TASK = "rejected_loss"
CHOICES_TASK = "choices"
ANSWER_TASK = "answer"


def build_tasks(
    tokenizer: Any,
    rows: Sequence[PreparedRow],
    scoring: Scoring,
    answer_pattern: str | None,
    max_new_tokens: int,
) -> dict[str, Any]:
    """Task name -> lm-eval task; `doc_id` is the row's index in every one."""
    tasks = {LOSS_TASK: _loss_task(LOSS_TASK, rows)}
    if scoring is Scoring.choices:
        tasks[CHOICES_TASK] = _choices_task(rows)
    elif scoring is Scoring.answer:
        tasks[ANSWER_TASK] = _answer_task(tokenizer, rows, answer_pattern, max_new_tokens)
    elif scoring is Scoring.preference:
        tasks[REJECTED_TASK] = _loss_task(REJECTED_TASK, [row.with_rejected for row in rows])
    return tasks


def _loss_task(name: str, rows: Sequence[PreparedRow]) -> Any:
    docs = [{"prompt": row.prompt, "completion": row.completion} for row in rows]
    # lm-eval's own perplexity overflows where a completion costs more than 709 nats.
    return _task(
        name,
        docs,
        "loss_nats",
        output_type="loglikelihood",
        doc_to_target="completion",
        process_results=lambda _, results: {"loss_nats": -results[0][0]},
    )


def _choices_task(rows: Sequence[PreparedRow]) -> Any:
    choices = [list(row.choices or []) for row in rows]
    # As lm-eval's own tasks have it, the blank before a choice does not count in `acc_norm`.
    blank = all(choice[:1] == " " and choice.strip() for offered in choices for choice in offered)
    docs = [
        {
            "prompt": row.prompt,
            "choices": [choice.removeprefix(" ") if blank else choice for choice in offered],
            "right": [choice.strip() for choice in offered].index(str(row.answer).strip()),
        }
        for row, offered in zip(rows, choices, strict=True)
    ]
    return _task(
        CHOICES_TASK,
        docs,
        "acc",
        "acc_norm",
        output_type="multiple_choice",
        doc_to_choice="choices",
        doc_to_target="right",
        target_delimiter=" " if blank else "",
    )


def _answer_task(
    tokenizer: Any, rows: Sequence[PreparedRow], pattern: str | None, max_new_tokens: int
) -> Any:
    prompts = generation_prompts(tokenizer, rows)
    docs = [
        {"prompt": prompt, "answer": row.answer} for prompt, row in zip(prompts, rows, strict=True)
    ]

    def judge(doc: Mapping[str, str], results: Sequence[str]) -> dict[str, int]:
        return {"exact_match": int(is_right(results[0], doc["answer"], pattern))}

    return _task(
        ANSWER_TASK,
        docs,
        "exact_match",
        output_type="generate_until",
        doc_to_target="answer",
        process_results=judge,
        generation_kwargs={
            "until": [tokenizer.eos_token],
            "max_gen_toks": max_new_tokens,
            "do_sample": False,
        },
    )


def _task(name: str, docs: list[dict[str, Any]], *metrics: str, **settings: Any) -> Any:
    """One lm-eval task over `docs`, the prompts taken as they are."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    split = {"rows": Dataset.from_list(docs)}
    load: Callable[..., dict[str, Dataset]] = lambda **_: split  # noqa: E731
    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": load,
            "test_split": "rows",
            "doc_to_text": "prompt",
            "target_delimiter": "",
            "num_fewshot": 0,
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True}
                for metric in metrics
            ],
            **settings,
        }
    )
