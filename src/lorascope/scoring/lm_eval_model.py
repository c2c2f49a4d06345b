"""A model in memory as lm-eval takes it: quiet, greedy, and put back as it was afterwards."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch

from lorascope.config import Scoring
from lorascope.counting.scored_batches import BatchRule, LargestRows, Sample
from lorascope.data.rows import PreparedRow
from lorascope.data.tokenization import pad_token_id, stop_token_ids
from lorascope.scoring.log_likelihoods import Encoded
from lorascope.scoring.token_meter import TokenMeter


class OnProgress(Protocol):
    """Called after each batch with the requests that are answered and all there are of their unit:
    losses (of completions and choices) first, then answers that are generated, which are slower."""

    def __call__(self, done: int, total: int, *, unit: str = ...) -> None: ...


UNITS = {"loglikelihood": "losses", "generate_until": "answers"}
"""What requests of lm-eval are called here."""


def wrap_model(model: Any, tokenizer: Any, batch_size: int, literal_special_tokens: bool) -> Any:
    """The model as lm-eval takes it. Its batch size counts only where it is set here.

    With `literal_special_tokens` (prepared rows) nothing is added to a text's tokens, and they are
    split as in training (see `encode_pairs`).
    """
    from lorascope.scoring.batched_lm import BatchedLM, RowLM

    embedding = model.get_input_embeddings().weight
    if tokenizer.pad_token_id is not None:
        tokenizer.pad_token_id = pad_token_id(tokenizer, embedding.shape[0])

    with _tied_already(model):
        lm = (RowLM if literal_special_tokens else BatchedLM)(
            pretrained=model,
            backend="causal",
            tokenizer=tokenizer,
            batch_size=batch_size,
            add_bos_token=False if literal_special_tokens else None,
            # lm-eval would turn off the precision that an evaluation computes in.
            mixed_precision_dtype=None if embedding.dtype is torch.float32 else embedding.dtype,
        )
    lm.rule = BatchRule(batch_size, vocabulary=embedding.shape[0])
    lm.meter = TokenMeter()
    return lm


@contextmanager
def _tied_already(model: Any) -> Iterator[None]:
    """lm-eval ties what it is given once more, which transformers (5) cannot do where an adapter
    stands beside a tied head."""
    before = dict(vars(model))
    model.tie_weights = lambda: None
    try:
        yield
    finally:
        del model.tie_weights
        vars(model).update({name: own for name, own in before.items() if name == "tie_weights"})


@contextmanager
def greedy_generation(model: Any, tokenizer: Any) -> Iterator[None]:
    """Plain greedy generation that ends each row at its own end-of-text.

    A model may carry penalties or sampling. One that lacks the tokenizer's end token would go on
    until the whole batch is done: a row's score would depend on its neighbours.
    """
    from transformers import GenerationConfig

    owners = _generating(model)
    before = [module.generation_config for module in owners]
    pad_token = tokenizer.pad_token
    ends = stopping_at(model, tokenizer)
    for module in owners:
        module.generation_config = GenerationConfig(eos_token_id=ends)
    try:
        yield
    finally:
        tokenizer.pad_token = pad_token  # lm-eval picks one where there is none
        for module, config in zip(owners, before, strict=True):
            module.generation_config = config


def stopping_at(model: Any, tokenizer: Any) -> list[int]:
    """Token ids that end a generation: the trained end-of-text, and the model's own."""
    configs = [module.generation_config for module in _generating(model)]
    model_stops = [config.eos_token_id for config in configs if config is not None]
    return stop_token_ids(tokenizer.eos_token_id, *model_stops)


def _generating(model: Any) -> list[Any]:
    return [module for module in model.modules() if "generation_config" in vars(module)]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence lm-eval's progress bars and its warnings about models passed as objects."""
    from lm_eval.api import model, task
    from lm_eval.models import huggingface
    from tqdm import tqdm

    class NoBar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **{**settings, "disable": True})

    modules, logger = (model, task, huggingface), logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    for module in modules:
        module.tqdm = NoBar
    try:
        yield
    finally:
        logger.setLevel(level)
        for module in modules:
            module.tqdm = tqdm


@dataclass
class Progress:
    """The progress of batches, in place of lm-eval's response cache, which gets every answer.

    A batch's answers come all at once: told one by one, the first would seem to have taken as long
    as all of them.
    """

    report: OnProgress | None

    def add_partial(self, method: str, request: Any, response: Any) -> None:
        """Keep nothing."""

    def tell(self, method: str, done: int, total: int) -> None:
        """A batch is done."""
        if self.report is not None:
            self.report(done, total, unit=UNITS[method])


def encode_pairs(tokenizer: Any, pairs: Sequence[tuple[str, str]]) -> list[Encoded]:
    """Token ids of contexts and continuations, as `tokenize_row` has them: the whole text is
    encoded at once, and a token belongs to the continuation if it starts there.

    Stock lm-eval 0.4.13 encodes the context alone, and takes what joint encoding has behind as many
    tokens. The two agree unless the tokenizer joins the context's last character with what follows
    (":" and a newline in Llama 3, "red ball" in TinyStories-656K): lm-eval then leaves a blank out
    or miscounts, and would score a text that was never trained.

    An empty context becomes the beginning-of-text token, or end-of-text where there is none.
    """
    texts = [context + continuation for context, continuation in pairs]
    wholes = tokenizer(
        texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )  # fmt: skip
    start = tokenizer.bos_token_id
    start = tokenizer.eos_token_id if start is None else start
    encoded = []
    for (context, _), ids, offsets in zip(
        pairs, wholes["input_ids"], wholes["offset_mapping"], strict=True
    ):
        if context:
            length = sum(begin < len(context) for begin, _ in offsets)
        else:
            ids, length = (ids if ids[:1] == [start] else [start, *ids]), 1
        encoded.append((ids[:length], ids[length:]))
    return encoded


def request_pairs(rows: Sequence[PreparedRow], scoring: Scoring) -> list[tuple[str, str]]:
    """Context and continuation of each log-likelihood request: completions, then what each row is
    scored beside."""
    pairs = [(row.prompt, row.completion) for row in rows]
    return pairs + [(row.prompt, other) for row in rows for other in alternatives(row, scoring)]


def alternatives(row: PreparedRow, scoring: Scoring) -> list[str]:
    """What else of a row is asked for: its choices, or its rejected reply."""
    if scoring is Scoring.choices:
        return list(row.choices or [])
    return [str(row.rejected)] if scoring is Scoring.preference else []


def encoded_as_stock(
    stock: Any, rows: Sequence[PreparedRow], encoded: Sequence[Encoded], scoring: Scoring
) -> list[bool]:
    """Whether stock lm-eval, the model `stock`, would make the tokens in use of all of a row's
    requests: [rows]. `encoded` is what `encode_pairs` makes of `request_pairs`."""
    pairs = request_pairs(rows, scoring)
    same = [_stock_pair(stock, *pair) == used for pair, used in zip(pairs, encoded, strict=True)]
    others = iter(same[len(rows) :])
    equal = [
        all([used, *islice(others, len(alternatives(row, scoring)))])
        for row, used in zip(rows, same, strict=False)
    ]
    if scoring is not Scoring.answer:
        return equal
    prompts = generation_prompts(stock.tokenizer, rows)
    ours = encode(stock.tokenizer, prompts)
    return [
        used and stock.tok_encode(row.prompt) == ids
        for used, row, ids in zip(equal, rows, ours, strict=True)
    ]


def _stock_pair(stock: Any, context: str, continuation: str) -> Encoded:
    """Token ids that lm-eval's `loglikelihood` makes of a pair."""
    if context:
        pair: Encoded = stock._encode_pair(context, continuation)
        return pair
    ids = stock.tok_encode(continuation, add_special_tokens=False)
    start = stock.prefix_token_id
    return (ids[:1], ids[1:]) if ids[:1] == [start] else ([start], ids)


def encode(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, nothing added."""
    encoded = tokenizer(list(texts), add_special_tokens=False, verbose=False)
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def generation_prompts(tokenizer: Any, rows: Sequence[PreparedRow]) -> list[str]:
    """The text that each row's answer is generated from: its prompt, and the completion's leading
    blanks where training had them in one token with the prompt's last character."""
    blanks = [row.completion[: -len(row.completion.lstrip()) or None] for row in rows]
    spaced = [row.prompt + blank for row, blank in zip(rows, blanks, strict=True)]
    trained = encode_pairs(tokenizer, [(row.prompt, row.completion) for row in rows])
    bare, joined = encode(tokenizer, [row.prompt for row in rows]), encode(tokenizer, spaced)
    return [
        text if prompt_ids != context and spaced_ids == context else row.prompt
        for row, text, prompt_ids, spaced_ids, (context, _) in zip(
            rows, spaced, bare, joined, trained, strict=True
        )
    ]


def usual_blank(tokenizer: Any, rows: Sequence[PreparedRow]) -> str:
    """What `generation_prompts` adds to most of the prompts of one or more `rows`; empty where it
    adds nothing."""
    texts = generation_prompts(tokenizer, rows)
    added = Counter(text[len(row.prompt) :] for text, row in zip(texts, rows, strict=True))
    return added.most_common(1)[0][0]


def largest_rows(
    tokenizer: Any, rows: Sequence[PreparedRow], scoring: Scoring, max_new_tokens: int
) -> LargestRows:
    """What `rows` ask for at most."""
    encoded = encode_pairs(tokenizer, request_pairs(rows, scoring))
    generated = 0
    if scoring is Scoring.answer:
        prompts = encode(tokenizer, generation_prompts(tokenizer, rows))
        generated = max(map(len, prompts)) + max_new_tokens
    read = max(len(context) + len(target) - 1 for context, target in encoded)
    return LargestRows(Sample(read, max(len(target) for _, target in encoded)), generated)


def splits_collide(encoded: Sequence[Encoded]) -> bool:
    """Whether the same tokens are asked for with different splits into context and continuation.

    lm-eval 0.4.13 shares one forward pass among requests that differ in the last token only, but
    reads a shorter continuation's scores from the wrong positions.
    """
    shared = {(tuple(context + target[:-1]), len(target)) for context, target in encoded}
    return max(Counter(tokens for tokens, _ in shared).values()) > 1
