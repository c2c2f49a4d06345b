"""A base model, as a file of conf/model says it."""

from __future__ import annotations

from dataclasses import dataclass

from lorascope.config.bounds import BELOW_ONE, SEED, Bound, bounded, named, one_of
from lorascope.config.choices import ModelKind

ATTENTIONS = ("auto", "sdpa", "eager", "flash_attention_2")


@dataclass
class ModelConfig:
    """A base model."""

    name: str = named("model")
    kind: ModelKind = ModelKind.local
    repository: str | None = None
    """Hub id, for kind=hub."""
    revision: str | None = None
    """Commit hash on the hub, for kind=hub: a branch name can move under a study."""
    path: str | None = None
    """Folder, for kind=local, relative to the project."""
    start_from: str | None = None
    """Whole name of a trial, for kind=trial: its merged model is the base, as DPO follows SFT."""
    trust_remote_code: bool = False
    attention: str = bounded("auto", one_of("attention", ATTENTIONS))
    known_config: str | None = None
    """Name of a public config.json that comes with lorascope: `count` and `plan` then need no
    download."""
    pretrain_steps: int = 0
    """For kind=tiny."""
    pretrain_seed: int = bounded(0, SEED)
    """For kind=tiny."""
    classes: int | None = bounded(
        None, Bound(lambda count: count >= 2, "a head chooses among 2 classes or more"),
        "Set it to the number of data.classes, or leave it empty for a model that writes text.",
    )  # fmt: skip
    """Give the base a head for so many classes in place of the one that writes tokens, for
    train.objective=classification."""
    dropout: float | None = bounded(None, BELOW_ONE, "0 turns it off; empty is the model's own.")
    """For `classes`: what the base's own dropouts become. With 0 trials can be trained at once."""
