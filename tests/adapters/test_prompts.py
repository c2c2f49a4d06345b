"""Prompts and prefixes: what stands in front of every sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedModel

from lorascope.adapters.attach import attach, detach, load_adapter, save_adapter
from lorascope.adapters.kinds import KINDS, kind_of
from lorascope.adapters.layers import model_parts
from lorascope.adapters.prompts.kind import PROMPTS
from lorascope.adapters.targets import select
from lorascope.config import Config
from lorascope.counting.architectures import table_shape
from lorascope.counting.parameters import prefix_layer_parameters
from lorascope.errors import ConfigError, LorascopeError, ModelError
from lorascope.files.layout import Layout
from lorascope.quantizers.loading import load_base
from lorascope.study.grid import expand
from tests.adapters.test_own_methods import BESIDE, small
from tests.conftest import BASE_OVERRIDES
from tests.counting.architecture_cases import config_values, meta_model
from tests.devices import CPU
from tests.packs import bare_losses, plan_for, train_alone
from tests.planning.test_prediction import assert_close, trained_and_predicted

Compose = Callable[..., Config]
TOKENS = 3
NAMES = [kind.config.kind for kind in PROMPTS]
ARCHITECTURES = ("llama", "gpt2", "gpt_neox", "opt", "bloom", "falcon 40b", "gemma3", "phi3")
IDS = torch.tensor([[11, 7, 23, 5, 42, 9, 31], [12, 40, 8, 19, 6, 33, 21]])


def prompted(kind: str, model: PreTrainedModel, seed: int = 1) -> PeftModel:
    """The model with a prompt of three tokens, larger than it begins so that it matters."""
    adapted = attach(model, KINDS[kind].config(tokens=TOKENS), seed)
    with torch.no_grad():
        for own in adapted.parameters():
            if own.requires_grad:
                own.mul_(5)
    return adapted.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", NAMES)
def test_the_base_answers_as_plain_peft_does(kind: str, architecture: str, tmp_path: Path) -> None:
    model = small(architecture)
    mask = torch.ones_like(IDS)
    mask[1, 5:] = 0
    with torch.no_grad():
        bare = model(input_ids=IDS).logits
        ours = prompted(kind, model)
        save_adapter(ours, tmp_path, "small")
        logits = ours(input_ids=IDS, attention_mask=mask).logits
        theirs = PeftModel.from_pretrained(small(architecture), tmp_path).eval()
        expected = theirs(input_ids=IDS, attention_mask=mask).logits[:, -IDS.shape[1] :]
        assert torch.equal(logits[mask.bool()], expected[mask.bool()])
        assert not torch.allclose(logits[0], bare[0])
        # The base itself answers, and is bare again afterwards.
        assert torch.equal(model(input_ids=IDS, attention_mask=mask).logits, logits)
        assert torch.equal(detach(ours)(input_ids=IDS).logits, bare)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom", "gemma3"])
@pytest.mark.parametrize("kind", NAMES)
def test_a_text_is_generated_as_token_after_token_without_a_cache(
    kind: str, architecture: str, tmp_path: Path
) -> None:
    model = small(architecture)
    save_adapter(prompted(kind, model), tmp_path, "small")
    model = small(architecture)
    model.generation_config.eos_token_id = None
    adapted = load_adapter(model, tmp_path)
    adapted.generation_config.eos_token_id = None
    mask = torch.ones_like(IDS)
    mask[1, :2] = 0
    text = adapted.generate(
        input_ids=IDS, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0
    )
    for row, given, written in zip(IDS, mask.bool(), text, strict=True):
        ids = row[given][None]
        for _ in range(6):
            with torch.no_grad():
                following = model(input_ids=ids, use_cache=False).logits[:, -1].argmax(-1)
            ids = torch.cat([ids, following[None]], 1)
        assert written[-6:].tolist() == ids[0, -6:].tolist()


class PaperPrefixLayer(nn.Module):
    """States that replace what a layer gets at its first positions, by hooks on a model whose
    embeddings are given."""

    def __init__(self, model: PreTrainedModel, states: Tensor) -> None:
        super().__init__()
        self.base, self.states = model, nn.Parameter(states)
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self._replace(number), with_kwargs=True)
        # A Trainer asks it before it trains anything beside a quantized base.
        self._hf_peft_config_loaded = True
        self.config, self.hf_quantizer = model.config, getattr(model, "hf_quantizer", None)

    def _replace(self, number: int) -> Callable[..., Any]:
        def hook(layer: nn.Module, args: Any, kwargs: Any) -> Any:
            hidden = args[0].clone()
            hidden[:, : self.states.shape[1]] = self.states[number]
            return (hidden, *args[1:]), kwargs

        return hook

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Any:
        """The model's output for tokens behind a front that the labels leave out."""
        embeddings, front = self.base.get_input_embeddings()(input_ids), self.states.shape[1]
        zeros = embeddings.new_zeros(len(input_ids), front, embeddings.shape[2])
        wider = (len(input_ids), front)
        return self.base(
            inputs_embeds=torch.cat([zeros, embeddings], 1),
            attention_mask=torch.cat([attention_mask.new_ones(wider), attention_mask], 1),
            labels=torch.cat([labels.new_full(wider, -100), labels], 1),
        )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("mode", ["fp16", "nf4", "int8", "int4_sym"])
def test_prefix_layer_replaces_what_each_layer_gets(
    project: Layout, compose: Compose, tmp_path: Path, mode: str
) -> None:
    config = compose(
        "adapter=prefix_layer", "prefix_layer.tokens=3", f"quant={mode}", "train.steps=8", "seed=3",
        "train.micro_batch_size=4", "train.log_every_steps=1", "train.learning_rate=0.01",
        "train.gradient_checkpointing=true",
    )  # fmt: skip
    plan = plan_for(project, config, tmp_path / "ours")
    ours = train_alone(plan)
    base = load_base(project.quantized("small", mode), config.quant, CPU).requires_grad_(False)
    shape = select(model_parts(base), config.adapter)[0]
    torch.manual_seed(3)
    states = torch.randn(shape.layers, 3, shape.features) * base.config.initializer_range
    bare = PaperPrefixLayer(base, states)
    losses = bare_losses(project, config, bare, tmp_path / "bare")
    assert [point.loss_nats for point in ours.losses] == pytest.approx(losses, abs=2e-5)
    assert losses[-1] < losses[0] - 0.1
    assert ours.trainable_parameters == bare.states.numel()
    assert_close(*trained_and_predicted(plan))


@pytest.mark.parametrize("case", ["llama", "gpt2", "opt", "gpt_neox", "bloom", "phi3"])
def test_prefix_layer_has_the_papers_count(case: str) -> None:
    values, config = config_values(case), KINDS["prefix_layer"].config(tokens=5)
    for parts in (model_parts(meta_model(values)), table_shape(values).parts):
        counted = kind_of(config).parameters(config, select(parts, config))
        assert counted == prefix_layer_parameters(table_shape(values), 5)


@pytest.mark.parametrize("kind", NAMES)
def test_a_model_that_sees_reads_a_prompt_in_front_of_its_text(kind: str) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING["llava_onevision"](**BESIDE["llava_onevision"])
    model = AutoModelForImageTextToText.from_config(config).eval().requires_grad_(False)
    with torch.no_grad():
        bare = model(input_ids=IDS).logits
        logits = prompted(kind, model)(input_ids=IDS).logits
    assert logits.shape == bare.shape
    assert not torch.allclose(logits, bare)


def test_more_than_a_model_has_positions_for_is_refused() -> None:
    model = small("gpt2")
    most = model.config.max_position_embeddings
    adapted = attach(model, KINDS["prompt"].config(tokens=most - 4), seed=0)
    with pytest.raises(
        ModelError, match=rf"tokens={most - 4}: with the 7 tokens.*{most} positions"
    ):
        adapted(input_ids=IDS)


def test_keys_that_peft_makes_too_many_of_are_named() -> None:
    adapted = attach(small("falcon 7b"), KINDS["prefix"].config(tokens=TOKENS), seed=0)
    with pytest.raises(ModelError, match=r"adapter=prefix: the keys.*adapter=prompt"):
        adapted(input_ids=IDS)


def test_what_no_run_could_use_is_refused(project: Layout) -> None:
    for words, message in (
        (["adapter=prefix", "train.gradient_checkpointing=true"], "twice.*such as prompt tuning"),
        (["adapter=prompt", "prompt.tokens=0"], "prompt.tokens=0: must be 1 or more"),
        (["adapter=prompt", "prompt.init=text"], "prompt.init='text'"),
    ):
        with pytest.raises(LorascopeError, match=message):
            expand(project, [*BASE_OVERRIDES, "quant=nf4", *words])
    narrow = model_parts(meta_model(config_values("opt like 350m")))
    for kind in NAMES:
        config = KINDS[kind].config()
        if kind == "prefix":
            config.require_layers(select(narrow, config))
            continue
        with pytest.raises(ConfigError, match="not as wide as its layers"):
            config.require_layers(select(narrow, config))
