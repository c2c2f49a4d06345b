"""LoRA that begins with what its layers read: EVA and CorDA, by PEFT's own functions."""

from __future__ import annotations

from typing import Any

import peft
from peft import PeftModel
from peft.tuners.lora import corda
from peft.tuners.lora.eva import prepare_model_inputs_fn_language_modeling
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import PreTrainedModel

from lorascope.adapters.first_samples import FirstSamples
from lorascope.adapters.kinds import highest_rank_of
from lorascope.adapters.lora.kind import LoraConfig
from lorascope.errors import ConfigError, ModelError

MOST_ROUNDS = 50
"""How often EVA may read the samples before its directions hold still."""


def begin_with_eva(config: LoraConfig, model: PeftModel, samples: FirstSamples) -> None:
    """Let A begin as the directions in which the inputs of its layer vary most, over tokens that
    are trained (Paischer et al. 2024, arXiv 2410.07170).

    Raises:
        ConfigError: a micro-batch has too few trained tokens for the rank.
        ModelError: the directions do not hold still.
    """
    batches = list(samples.batches())
    trained, highest = sum(batches[0].places.counts), highest_rank_of(config)
    if trained < 2 * highest:
        raise ConfigError(
            "lora.rank", highest,
            f"lora.init=eva finds so many directions in twice as many tokens that are trained, and "
            f"the first micro-batch has {trained}",
            f"Take a rank up to {trained // 2}, a larger train.micro_batch_size, or another "
            "lora.init.",
        )  # fmt: skip
    usable = [batch for batch in batches if sum(batch.places.counts) >= highest]
    left = iter(range(MOST_ROUNDS * len(usable)))

    def forward(adapted: nn.Module, batch: Any) -> None:
        if next(left, None) is None:
            raise ModelError(
                f"lora.init=eva: the directions of the layers' inputs do not hold still after "
                f"{MOST_ROUNDS} rounds over {len(batches)} batches. Raise lora.init_samples, lower "
                "lora.rank, or take another lora.init."
            )
        samples.read(adapted, batch)

    peft.initialize_lora_eva_weights(
        model, usable, forward_fn=forward, prepare_model_inputs_fn=_trained_positions,
        show_progress_bar=False,
    )  # fmt: skip
    # PEFT's model, which is new, was in training.
    model.eval()


def _trained_positions(batch: Any, made: peft.LoraConfig) -> Any:
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.labels,
    }
    return prepare_model_inputs_fn_language_modeling(inputs, made)


def measure_covariances(
    model: PreTrainedModel, made: peft.LoraConfig, samples: FirstSamples
) -> None:
    """Give each layer that `made` adapts the covariance of its inputs, which PEFT takes sample by
    sample."""

    def run() -> None:
        for batch in samples.batches(1):
            samples.read(model, batch)

    corda.calib_cov_distribution(model, made, run, None, None)


def give_directions(model: PreTrainedModel, name: str, own: Any, made: peft.LoraConfig) -> None:
    """Give the copy that stands in place of the layer `own` the directions that CorDA begins with
    (Yang et al. 2024, arXiv 2406.05223), by the covariance that `own` has: it is gone afterwards.

    Args:
        made: adapts this layer alone.
    """
    copy: Any = model.get_submodule(name)
    copy.covariance_matrix = own.covariance_matrix
    copy.corda_method = made.corda_config.corda_method
    copy.rank = made.rank_pattern.get(get_pattern_key(made.rank_pattern.keys(), name), made.r)
    for beside in ("covariance_matrix", "sample_count"):
        delattr(own, beside)
    corda.collect_eigens(model, made, verbose=False)
    del copy.covariance_matrix
    corda.crop_corda_eigens(model, made)
