"""Baseline of evaluation: one lm-eval run of one adapter on one file of rows, nothing else.

What a competent user writes with lm-eval's Python interface: a task over a local JSONL file,
without the index of built-in tasks (14 s), the model passed as an object. It knows nothing of
lorascope.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

# No look-ups on the hub, and no bars: both would only make the baseline slower.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from bare_base import load_base
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from peft import PeftModel
from transformers import AutoTokenizer
from transformers.utils import logging

TASK = "rows"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Score one adapter's completions with lm-eval.")
    parser.add_argument("--base", type=Path, required=True, help="folder of the stored base")
    parser.add_argument("--adapter", type=Path, required=True, help="folder of the adapter")
    parser.add_argument("--data", type=Path, required=True, help="JSONL: item, prompt, completion")
    parser.add_argument("--output", type=Path, required=True, help="JSONL: item, loglikelihood")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves torch's choice")
    return parser.parse_args()


def main() -> None:
    """Score, write one line an item, print the mean log-likelihood."""
    given = arguments()
    if given.threads:
        torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    lm = HFLM(
        pretrained=PeftModel.from_pretrained(load_base(given.base), given.adapter).eval(),
        tokenizer=AutoTokenizer.from_pretrained(given.base),
        backend="causal",
        batch_size=given.batch_size,
        add_bos_token=False,
        softmax_dtype="float32",
    )
    results = simple_evaluate(
        model=lm,
        tasks=[row_task(given.data)],
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
        verbosity="ERROR",
    )
    scores = [
        {"item": sample["doc"]["item"], "loglikelihood": float(sample["filtered_resps"][0][0])}
        for sample in results["samples"][TASK]
    ]
    given.output.write_text("".join(json.dumps(score) + "\n" for score in scores))
    print(f"loglikelihood {sum(score['loglikelihood'] for score in scores) / len(scores):.4f}")


def row_task(data: Path) -> dict[str, Any]:
    """The log-likelihood of each row's completion after its prompt."""
    return {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "prompt",
        "doc_to_target": "completion",
        "target_delimiter": "",
        "num_fewshot": 0,
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


if __name__ == "__main__":
    main()
