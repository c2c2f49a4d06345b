"""Batches without padding: what padded ones give, of every architecture that is named, in a pack,
and in a whole training beside plain PEFT."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from lorascope.adapters.attach import attach
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.adapters.prompts.kind import PromptConfig
from lorascope.config import Config, TrainConfig
from lorascope.data.rows import Segment, read_rows, write_rows
from lorascope.files.layout import Layout
from lorascope.meters.batches import BatchMemory
from lorascope.objectives import padding_free
from lorascope.objectives.completion import Completion
from lorascope.objectives.evaluation import forward_of, summed_loss
from lorascope.objectives.kinds import Sample, TokenBatch, TrialRows
from lorascope.objectives.padding_free import ARCHITECTURES, can_do_without, pays, without_padding
from lorascope.planning.plan import plan_memory
from lorascope.planning.subject import PlanSubject, spec_of
from lorascope.quantizers.loading import load_base
from lorascope.records import TrainingResult
from lorascope.training.optimizer import adamw
from lorascope.training.pack import pack_adapters
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan
from tests.devices import CPU
from tests.packs import bare_losses, pack_plan, plan_for

LENGTHS, OTHER_LENGTHS = (100, 70, 80, 200), (90, 100, 120, 240)
SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
    # Large weights, so that a token that sees another sample shows.
    "initializer_range": 0.4, "init_std": 0.4,
}  # fmt: skip


def sample(tokens: int) -> Sample:
    """The second half is trained."""
    ids = [3 + (tokens + 7 * place) % 90 for place in range(tokens)]
    return ids, [-100] * (tokens // 2) + ids[tokens // 2 :]


def batch_of(*trials: Sequence[int]) -> TokenBatch:
    samples = [sample(tokens) for trial in trials for tokens in trial]
    return Completion().collate(samples, len(trials), 0)


def tiny(architecture: str, **more: object) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **(SIZES | more))
    config._attn_implementation = "sdpa"
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_losses_are_those_of_padded_samples(architecture: str) -> None:
    model = tiny(architecture)
    assert can_do_without(model)
    padded = batch_of(LENGTHS, OTHER_LENGTHS)
    batch = without_padding(padded, model.config)
    assert batch.rows is not None
    # Four samples of 450 tokens, and four of 550: eight of 240 with padding.
    assert batch.rows.input_ids.shape == (2, 550)
    forward = forward_of(model)
    losses, expected = (Completion().losses(forward, one).summed for one in (batch, padded))
    assert torch.allclose(losses, expected, rtol=1e-6)


def test_an_architecture_that_keeps_the_lengths_from_attention_is_computed_with_padding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny("stablelm")
    assert not can_do_without(model)
    # What would come out if it were in the list.
    padded = batch_of(LENGTHS)
    batch, forward = without_padding(padded, model.config), forward_of(model)
    losses, expected = (Completion().losses(forward, one).summed for one in (batch, padded))
    assert not torch.allclose(losses, expected, rtol=1e-3)


def test_attention_of_another_kind_and_a_decoder_with_a_front_get_padding() -> None:
    from peft import AdaptionPromptConfig, get_peft_model

    model = tiny("llama")
    settings = AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM")
    get_peft_model(model, settings)
    assert not can_do_without(model)
    fronted = attach(tiny("llama"), PromptConfig(tokens=4), seed=0)
    assert not can_do_without(fronted.get_base_model())


@pytest.mark.parametrize(
    ("lengths", "more", "free"),
    [
        ((100, 200), {}, True),
        # Attention's calls cost more than so little padding.
        ((20, 60), {}, False),
        ((190, 200), {}, False),
        # A layer sees a window alone.
        ((100, 200), {"sliding_window": 199}, False),
        ((100, 200), {"sliding_window": 200}, True),
    ],
)
def test_padding_is_left_out_where_that_pays(
    lengths: tuple[int, ...], more: dict[str, object], free: bool
) -> None:
    assert (
        pays(AutoConfig.for_model("mistral", **({"sliding_window": None} | more)), lengths) is free
    )


@pytest.mark.parametrize(
    ("lengths", "padded_to", "free"),
    [
        ((255, 256), None, False),
        ((256, 257), None, True),
        ((400, 400), None, False),
        # Part of a batch whose longest sample is in another part.
        ((400, 400), 401, True),
    ],
)
def test_an_evaluation_spares_long_samples_any_padding(
    lengths: tuple[int, ...], padded_to: int | None, free: bool
) -> None:
    config = AutoConfig.for_model("llama")
    assert pays(config, lengths, padded_to=padded_to, trains=False) is free
    assert not pays(config, lengths, padded_to=padded_to)


@pytest.mark.parametrize(
    ("trials", "free"),
    [
        # A sample a trial: its row would be as long as it is with padding.
        (((100,), (200,)), False),
        # Two samples of 200 in one row: the other trial's row is as long.
        (((200, 200), (64, 64)), False),
        (((200, 64), (64, 200)), True),
    ],
)
def test_padding_stays_where_no_trial_has_a_shorter_row(
    trials: tuple[tuple[int, ...], ...], free: bool
) -> None:
    batch = without_padding(batch_of(*trials), tiny("llama").config)
    assert (batch.rows is not None) is free


def step(
    trials: Sequence[Sequence[int]], seeds: list[int], free: bool, checkpointed: bool
) -> tuple[Tensor, list[Tensor]]:
    """Losses and gradients of one micro-batch with dropout, adapters drawn by seed."""
    base = tiny("llama")
    configs = [LoraConfig(rank=4, dropout=0.2)] * len(seeds)
    pack = pack_adapters(base, configs, seeds)
    pack.shape.longest_tokens = 250
    pack.train()
    with torch.no_grad():
        for row, seed in zip(pack.stack.rows, seeds, strict=True):
            row.add_(0.1 * torch.randn(row.shape, generator=torch.Generator().manual_seed(seed)))
    if checkpointed:
        base.activation_checkpointing_enable()
    batch = batch_of(*trials)
    batch = pack.without_padding(batch) if free else batch
    assert (batch.rows is not None) is free
    pack.seed(0, 0)
    pack.zero_grad()
    losses = Completion().losses(pack, batch).summed / batch.weights
    losses.sum().backward()  # type: ignore[no-untyped-call]
    return losses.detach(), [row.grad.clone() for row in pack.stack.rows if row.grad is not None]


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.usefixtures("one_thread")
def test_a_pack_has_the_gradients_of_padded_samples_and_dropouts_draws(checkpointed: bool) -> None:
    trials = (LENGTHS, OTHER_LENGTHS)
    losses, gradients = step(trials, [0, 1], True, checkpointed)
    expected, padded = step(trials, [0, 1], False, checkpointed)
    assert torch.allclose(losses, expected, rtol=1e-6)
    for own, other in zip(gradients, padded, strict=True):
        assert (own - other).abs().max() < 2e-6 * other.abs().max()


@pytest.mark.usefixtures("one_thread")
def test_trials_of_one_seed_have_their_bits_in_company() -> None:
    alone, (gradient,) = step((LENGTHS,), [0], True, False)
    together, gradients = step((LENGTHS, LENGTHS), [0, 0], True, False)
    assert torch.equal(together, alone.expand(2))
    assert all(torch.equal(own, gradient) for own in gradients)


def fronts() -> Iterator[str]:
    """Texts of no to 150 tokens."""
    return (" has the color" * (place * 7 % 50) for place in count())


def long_rows(project: Layout, folder: Path) -> Path:
    """The small project's data with prompts of 10 to 150 tokens."""
    shutil.copytree(project.data("small", "toy"), folder)
    for split in ("train", "validation"):
        rows = read_rows(folder / f"{split}.jsonl")
        longer = [
            replace(row, segments=[Segment(front, False), *row.segments], prompt=front + row.prompt)
            for row, front in zip(rows, fronts(), strict=False)
        ]
        write_rows(folder / f"{split}.jsonl", longer)
    return folder


def test_a_training_has_the_losses_of_trainer_and_peft(
    project: Layout, compose: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, own = [], padding_free.rows_of

    def rows_of(ids: Tensor, lengths: Sequence[int], trials: int) -> TrialRows:
        batches.append(lengths)
        return own(ids, lengths, trials)

    monkeypatch.setattr(padding_free, "rows_of", rows_of)
    config, data = (
        compose("train.steps=6", "train.log_every_steps=1", "quant=nf4"),
        long_rows(project, tmp_path / "data"),
    )
    plan = replace(plan_for(project, config, tmp_path / "a"), data=data)
    (result,) = train_pack(plan, CPU)
    assert isinstance(result, TrainingResult)
    assert len(batches) >= 6
    base = load_base(plan.base, config.quant, CPU)
    model = attach(base, config.adapter, config.seed)
    expected = bare_losses(project, config, model, tmp_path / "bare", data=data)
    assert [point.loss_nats for point in result.losses] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("mode", "ranks", "more"),
    [
        ("fp16", (8,), ()),
        ("nf4", (1, 64, 16), ()),
        ("nf4", (8, 64), ("quant.compute=bfloat16",)),
        ("int8", (8,), ("train.gradient_checkpointing=true",)),
    ],
)
def test_a_plan_equals_the_tracked_peaks(
    project: Layout, compose: Callable[..., Config], tmp_path: Path,
    mode: str, ranks: tuple[int, ...], more: tuple[str, ...],
) -> None:  # fmt: skip
    settings = (f"quant={mode}", *more)
    configs = [compose(*settings, f"lora.rank={rank}") for rank in ranks]
    folders = [tmp_path / str(rank) for rank in ranks]
    plan = replace(pack_plan(project, configs, folders), data=long_rows(project, tmp_path / "data"))
    memory = BatchMemory(CPU)
    result = train_pack(plan, CPU, memory=memory)[0]
    assert isinstance(result, TrainingResult)
    assert memory.largest is not None
    assert memory.largest.computed is not None
    assert memory.largest.computed < memory.largest.samples * memory.largest.tokens
    predicted = plan_memory(subject(plan, memory))
    for phase in ("train", "evaluate"):
        measured = result.memory[phase].tracked_peak_bytes
        assert predicted.peak_bytes[phase] == pytest.approx(measured, rel=0.002), phase


def test_a_batch_padded_further_than_its_longest_sample_can_be_planned() -> None:
    # Two batches of at most 4,096 tokens, padded to the longest sample of both.
    samples = [sample(tokens) for tokens in (2000, 1500, 1200, 700)]
    model, memory = tiny("llama", max_position_embeddings=2048), BatchMemory(CPU)
    with memory.validation(model, []) as before_batch:
        summed_loss(Completion(), model, samples, 4, before_batch)
    assert [batch.lengths for batch in memory.evaluation] == [(2000, 1500), (1200, 700)]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ((300, 299, 290, 270), [True]),
        # One at a time, each padded to the longest of the batch.
        ((2100, 2100, 1990, 1985), [False, False, True, True]),
    ],
)
def test_a_validation_of_long_samples_gives_the_losses_of_samples_alone(
    lengths: tuple[int, ...], expected: list[bool]
) -> None:
    samples, free = [sample(tokens) for tokens in lengths], list[bool]()
    model = tiny("llama", max_position_embeddings=4096)
    summed, weight = summed_loss(
        Completion(), model, samples, 4, lambda batch: free.append(batch.rows is not None)
    )
    alone = [summed_loss(Completion(), model, [one], 1) for one in samples]
    assert free == expected
    assert weight == sum(own for _, own in alone)
    assert summed == pytest.approx(sum(own for own, _ in alone), rel=1e-6)


def test_a_mask_is_measured_after_a_batch_that_has_none() -> None:
    """Both batches compute 1,600 positions; with a mask, heads that share keys get copies too."""
    pack = pack_adapters(tiny("llama"), [LoraConfig(rank=4)], [0]).train()
    optimizer = adamw(pack.stack.rows, [TrainConfig("brief", steps=1)])

    def peak(*batches: Sequence[int]) -> int | None:
        memory = BatchMemory(CPU)
        for lengths in batches:
            batch = pack.without_padding(batch_of(lengths))
            pack.zero_grad()
            with memory.micro_batch(pack, optimizer, batch):
                losses = Completion().losses(pack, batch).summed
                losses.sum().backward()  # type: ignore[no-untyped-call]
        return memory.train_peak_bytes

    free, padded = (480, 120, 500, 500), (391, 395, 400, 399)
    assert peak(free, padded) == peak(padded)


def subject(plan: PackPlan, memory: BatchMemory) -> PlanSubject:
    first, *beside = (trial.settings for trial in plan.trials)
    values = json.loads((plan.base / "config.json").read_text())
    assert memory.largest is not None
    return PlanSubject(
        spec=spec_of(plan.quant, first, plan.attention, values, "cpu", beside),
        device="cpu",
        training=plan.train,
        train=memory.largest,
        evaluation=tuple(memory.evaluation),
    )
