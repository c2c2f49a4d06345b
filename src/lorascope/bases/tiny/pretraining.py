"""Pre-trains the embedded tiny base: a Llama that knows every fact about the old people.

It exists so that the whole pipeline runs from a clone in minutes, with no download. FP32, two CPU
cores, a plain AdamW loop: the base is an input of the experiment, not its subject.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorascope.bases.tiny.shape import (
    CONTEXT_TOKENS,
    EOS,
    PAD,
    SPACE_MARK,
    UNKNOWN,
    tiny_config,
    token_ids,
)
from lorascope.data.biographies import OLD_PEOPLE, Row, make_biographies
from lorascope.data.tokenization import IGNORED_LABEL

OnStep = Callable[[int, int, float], None]
"""Called with (step from 1, total steps, loss in nats per trained token)."""


@dataclass(frozen=True)
class PretrainSettings:
    """Settings that decide the bytes of the base, beside its shape."""

    old_people: int = OLD_PEOPLE
    steps: int = 400
    first_people: int = 40
    """The first steps see only so many of the old people. Recall appears suddenly, after a plateau
    that grows with the number of people (Zucchet et al., arXiv 2503.21676): few shorten it."""
    first_people_steps: int = 120
    batch_rows: int = 128
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    adam_beta2: float = 0.98
    max_gradient_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class PretrainResult:
    """Result of pre-training: loss is the last batch's mean over trained tokens (answer, end),
    recall the exact match of the greedy answer over every row about the old people, 0 to 1."""

    steps: int
    loss_nats: float
    recall: float
    seconds: float


Encoded = tuple[Tensor, Tensor]
"""input_ids and labels, each [rows, tokens], padded on the right. No attention mask: under causal
attention no real token sees the padding after it."""


def build_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A whole-word tokenizer over the biographies' vocabulary.

    Spaces belong to the word that follows them, so " Paris" is the same token alone and in context:
    encoding prompt and completion jointly or apart gives the same ids. Nothing is added around.
    """
    tokenizer = Tokenizer(models.WordLevel(token_ids(), unk_token=UNKNOWN))
    words = pre_tokenizers.Metaspace(replacement=SPACE_MARK, prepend_scheme="always")
    punctuation = pre_tokenizers.Punctuation(behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, punctuation])
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE_MARK, prepend_scheme="always")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=CONTEXT_TOKENS,
        padding_side="right",
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
    )


def build_tiny_model(seed: int = 0) -> LlamaForCausalLM:
    """A freshly initialised FP32 Llama."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**tiny_config()))


def encode_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> Encoded:
    """Prompt, completion and end token of each row; only the latter two are trained."""
    prompts = tokenizer([row.prompt for row in rows])["input_ids"]
    completions = tokenizer([row.completion for row in rows])["input_ids"]
    pairs = [(p, [*c, tokenizer.eos_token_id]) for p, c in zip(prompts, completions, strict=True)]
    tokens = max(len(prompt) + len(ending) for prompt, ending in pairs)
    input_ids = torch.full((len(rows), tokens), int(tokenizer.pad_token_id))
    labels = torch.full((len(rows), tokens), IGNORED_LABEL)
    for index, (prompt, ending) in enumerate(pairs):
        end = len(prompt) + len(ending)
        input_ids[index, :end] = torch.tensor([*prompt, *ending])
        labels[index, len(prompt) : end] = torch.tensor(ending)
    return input_ids, labels


def measure_recall(model: nn.Module, encoded: Encoded) -> float:
    """Share of rows whose first completion token is the model's first choice, 0 to 1."""
    hits = 0
    model.eval()
    with torch.inference_mode():
        for input_ids, labels in zip(*(torch.split(part, 1000) for part in encoded), strict=True):
            targets = labels[:, 1:]
            chosen = model(input_ids=input_ids).logits[:, :-1].argmax(-1)
            first = (targets != IGNORED_LABEL).int().argmax(1, keepdim=True)
            hits += int((chosen.gather(1, first) == targets.gather(1, first)).sum())
    model.train()
    return hits / len(encoded[0])


def learning_rate_factor(step: int, settings: PretrainSettings) -> float:
    """Linear warm-up to 1, then half a cosine towards 0; `step` counts from 0."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * done))


def draw_batches(row_count: int, settings: PretrainSettings) -> Iterator[Tensor]:
    """Row indices of each step, shape [batch_rows]: shuffled passes, at first over few people.

    Rows stand person by person, so the first people's are the first rows. A pass that the step
    `first_people_steps` interrupts is dropped; one that a batch does not divide runs into the next.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    first_rows = row_count * settings.first_people // settings.old_people
    first_steps = min(settings.first_people_steps, settings.steps)
    for seen_rows, steps in ((first_rows, first_steps), (row_count, settings.steps - first_steps)):
        passes = math.ceil(steps * settings.batch_rows / seen_rows)
        shuffled = [torch.randperm(seen_rows, generator=generator) for _ in range(passes)]
        order = torch.cat([torch.arange(0), *shuffled])
        for step in range(steps):
            yield order[step * settings.batch_rows :][: settings.batch_rows]


def pretrain_tiny(
    settings: PretrainSettings, folder: Path, on_step: OnStep | None = None
) -> PretrainResult:
    """Train the base on the old people and save model and tokenizer into `folder`: the same bytes
    for the same settings, on one machine with the same number of threads."""
    started = time.perf_counter()
    tokenizer = build_tiny_tokenizer()
    model = build_tiny_model(settings.seed)
    people = make_biographies(settings.old_people, seed=settings.seed)
    encoded = encode_rows(people.pretraining, tokenizer)
    loss_nats, recall = _train(model, encoded, settings, on_step), measure_recall(model, encoded)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return PretrainResult(settings.steps, loss_nats, recall, time.perf_counter() - started)


def _train(
    model: LlamaForCausalLM,
    encoded: Encoded,
    settings: PretrainSettings,
    on_step: OnStep | None,
) -> float:
    """Train with AdamW and return the last batch's loss in nats a trained token."""
    betas, decay = (0.9, settings.adam_beta2), settings.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), betas=betas, weight_decay=decay)
    loss_nats, (input_ids, labels) = math.nan, encoded
    model.train()
    for step, rows in enumerate(draw_batches(len(input_ids), settings)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(step, settings)
        loss = model(input_ids=input_ids[rows], labels=labels[rows]).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimizer.step()
        optimizer.zero_grad()
        loss_nats = float(loss.detach())
        if on_step is not None:
            on_step(step + 1, settings.steps, loss_nats)
    return loss_nats
