"""Classification: against transformers and plain PEFT, packed against alone, padded or not."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from lorascope.adapters.class_head import draw_heads, head_names
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.config import ModelConfig, Targets, TrainConfig
from lorascope.meters.batches import BatchMemory
from lorascope.objectives.classification import Classification
from lorascope.objectives.evaluation import forward_of
from lorascope.planning.plan import plan_memory
from lorascope.planning.subject import PlanSubject, spec_of
from lorascope.quantizers.loading import load_base, load_stored, require_quantizable
from lorascope.records import TrainingResult
from lorascope.scoring.classes import score_classes
from lorascope.scoring.merged_folder import write_merged
from lorascope.scoring.merging import merge
from lorascope.training.run import train_pack
from lorascope.training.trial_plan import PackPlan, TrialPlan
from tests.class_bases import ClassBase, class_rows, config_values, make_class_base, tokenizer_of
from tests.devices import CPU

STEPS = 10


def pack(
    base: ClassBase,
    folder: Path,
    *trials: tuple[int, int],
    targets: Targets = Targets.q_v,
    dropout: float = 0.0,
    **train: Any,
) -> PackPlan:
    """Trials of these ranks and seeds, of the LoRA paper's targets."""
    settings = TrainConfig(
        "few", steps=STEPS, batch_size=8, micro_batch_size=4, learning_rate=1e-2,
        objective="classification", log_every_steps=1, **train,
    )  # fmt: skip
    return PackPlan(
        base=base.stored, base_name="small", data=base.data, checkpoints=None, quant=base.quant,
        attention="auto", evaluate_batch_size=8,
        trials=[
            TrialPlan(
                LoraConfig(rank=rank, alpha=8, targets=targets, dropout=dropout), settings, seed,
                folder / f"{rank}-{seed}",
            )
            for rank, seed in trials
        ],
    )  # fmt: skip


def train(plan: PackPlan, memory: BatchMemory | None = None) -> list[TrainingResult]:
    results = train_pack(plan, CPU, memory=memory)
    assert all(isinstance(own, TrainingResult) for own in results), results
    return results  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["roberta", "bert", "deberta", "gpt2"])
def test_a_row_has_the_logits_that_transformers_gives_it_whatever_it_is_batched_with(
    tmp_path: Path, name: str
) -> None:
    made = make_class_base(name, tmp_path)
    model, tokenizer = load_base(made.stored, made.quant, CPU), tokenizer_of(made)
    plain = AutoModelForSequenceClassification.from_pretrained(made.base).eval()
    rows = class_rows(10, second=name == "bert")
    samples = Classification().samples(rows, tokenizer, False)
    batch = Classification().collate(samples, 1, 0, longest=20)
    with torch.no_grad():
        together = forward_of(model)(batch, batch.places).all()
        for row, ours in zip(rows, together, strict=True):
            texts = [segment.text for segment in row.segments]
            theirs = plain(**tokenizer(*texts, return_tensors="pt")).logits[0]
            assert torch.allclose(ours, theirs, atol=1e-5)
    assert together.std(0).min() > 1e-3
    assert batch.padded
    assert (batch.token_types is not None) == (name == "bert")


def test_losses_of_ten_steps_equal_plain_pefts_with_transformers_trainer(tmp_path: Path) -> None:
    made = make_class_base("headed_roberta", tmp_path)
    (ours,) = train(pack(made, tmp_path, (4, 5)))
    tokenizer = tokenizer_of(made)
    model = AutoModelForSequenceClassification.from_pretrained(made.base)
    torch.manual_seed(5)
    adapted = get_peft_model(
        model,
        PeftLoraConfig(r=4, lora_alpha=8, target_modules=["query", "value"], task_type="SEQ_CLS"),
    )
    features = [
        {**tokenizer(row.prompt), "labels": (row.choices or []).index(str(row.answer))}
        for row in made.rows[:32]
    ]
    arguments = TrainingArguments(
        str(tmp_path / "trainer"), max_steps=STEPS, learning_rate=1e-2,
        per_device_train_batch_size=8, lr_scheduler_type="linear", seed=5, data_seed=5,
        logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        adapted, arguments, train_dataset=features, data_collator=DataCollatorWithPadding(tokenizer)
    )
    trainer.train()
    theirs = [own["loss"] for own in trainer.state.log_history if "loss" in own]
    assert [own.loss_nats for own in ours.losses] == pytest.approx(theirs, abs=1e-5)
    assert max(theirs) - min(theirs) > 0.1
    bare = AutoModelForSequenceClassification.from_pretrained(made.base)
    loaded = PeftModel.from_pretrained(bare, tmp_path / "4-5").eval()
    inputs = tokenizer([row.prompt for row in made.rows], padding=True, return_tensors="pt")
    with torch.no_grad():
        gap = loaded(**inputs).logits - adapted.eval()(**inputs).logits
    assert gap.abs().max() < 1e-4


def test_a_pooler_that_came_with_the_checkpoint_is_what_all_trials_begin_with(
    tmp_path: Path,
) -> None:
    """BERT's own checkpoint: a pooler, and no classifier."""
    made = make_class_base("pretrained_bert", tmp_path)
    bare = AutoModelForSequenceClassification.from_pretrained(made.base)
    heads = head_names(bare)
    assert heads == ["bert.pooler", "classifier"]
    source = load_file(tmp_path / "source/model.safetensors")
    drawn = []
    for seed in (0, 1):
        model = AutoModelForSequenceClassification.from_pretrained(made.base)
        settings = PeftLoraConfig(r=2, target_modules=["query"], modules_to_save=heads)
        adapted = get_peft_model(model, settings)
        torch.manual_seed(seed)
        draw_heads(adapted)
        copies = dict(adapted.named_parameters())
        own = "base_model.model.{}.modules_to_save.default.{}.weight"
        pooler = copies[own.format("bert.pooler", "dense")]
        assert torch.equal(pooler, source["bert.pooler.dense.weight"])
        place = own.replace(".{}.weight", ".weight").format("classifier")
        drawn.append(copies[place].detach())
    assert not torch.equal(*drawn)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "targets", "dropout"),
    [("roberta", Targets.q_v, 0.0), ("deberta", Targets.q_v, 0.1),
     ("first_deberta", Targets.all_linear, 0.1)],
)  # fmt: skip
def test_packed_trials_with_heads_of_their_own_equal_lone_ones_to_the_bit(
    tmp_path: Path, name: str, targets: Targets, dropout: float
) -> None:
    """DeBERTa's queries read positions too, which are the same for all samples."""
    made = make_class_base(name, tmp_path, "nf4")
    trials, heads = ((2, 0), (8, 1), (4, 0))[: 3 if name == "roberta" else 2], []
    plan = partial(pack, made, targets=targets, dropout=dropout)
    packed = train(plan(tmp_path / "packed", *trials))
    for (rank, seed), together in zip(trials, packed, strict=True):
        (alone,) = train(plan(tmp_path / "alone", (rank, seed)))
        assert together.losses == alone.losses
        assert together.adapter_sha256 == alone.adapter_sha256
        saved = load_file(tmp_path / f"alone/{rank}-{seed}/adapter_model.safetensors")
        heads.append(next(saved[key] for key in saved if "lora" not in key and ".weight" in key))
    # Seeds draw heads of their own, and each trial trains its own.
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[-1])
    if name == "roberta":
        assert packed[0].trainable_parameters == 2 * 2 * 2 * (32 + 32) + 32 * 33 + 2 * 33


@pytest.mark.parametrize(
    ("name", "mode", "ranks"),
    [("roberta", "nf4", (2, 8)), ("bert", "int8_sym", (4,)), ("deberta", "float32", (4, 2)),
     ("gpt2", "float32", (2, 8))],
)  # fmt: skip
def test_a_trial_is_planned_scored_and_merged(
    tmp_path: Path, name: str, mode: str, ranks: tuple[int, ...]
) -> None:
    made, memory = make_class_base(name, tmp_path, mode), BatchMemory(CPU)
    # As `check` does, before there is a head: DeBERTa has no class that writes tokens.
    require_quantizable(tmp_path / "source", made.quant, ModelConfig("mine", classes=2))
    targets = Targets.all_linear if name == "gpt2" else Targets.q_v
    plan = pack(made, tmp_path, *((rank, 0) for rank in ranks), targets=targets)
    (first, *_) = train(plan, memory)
    values, settings = config_values(made.stored), [trial.settings for trial in plan.trials]
    assert memory.largest is not None
    spec = spec_of(plan.quant, settings[0], "auto", values, "cpu", settings[1:])
    subject = PlanSubject(spec, "cpu", plan.train, memory.largest, tuple(memory.evaluation))
    predicted = plan_memory(subject)
    for phase in ("train", "evaluate"):
        measured = first.memory[phase].tracked_peak_bytes
        assert predicted.peak_bytes[phase] == pytest.approx(measured, rel=0.02), phase
    adapter, merged = plan.trials[0].adapter, tmp_path / "merged"
    merged.mkdir()
    write_merged(
        merge(load_stored(made.stored, made.quant), adapter, torch.float32), made.base, None, merged
    )
    tokenizer = tokenizer_of(made)
    base = load_base(made.stored, made.quant, CPU)
    adapted = PeftModel.from_pretrained(base, adapter).eval()
    plain = AutoModelForSequenceClassification.from_pretrained(merged).eval()
    ours = score_classes(adapted, tokenizer, made.rows, 4)
    theirs = score_classes(plain, tokenizer, made.rows, 16)
    assert [o.loss_nats for o in ours] == pytest.approx([t.loss_nats for t in theirs], abs=1e-5)
    assert {item.predicted for item in ours} <= {0, 1}
    assert all(item.correct == (item.label == item.predicted) for item in ours)
