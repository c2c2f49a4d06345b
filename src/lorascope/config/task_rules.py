"""Rules of what a head for classes goes with, in other groups."""

from __future__ import annotations

from lorascope.config import Config, Format, Targets
from lorascope.config.rule import Rule


def _classifies(config: Config) -> bool:
    return config.train.objective == "classification"


ONE_TASK = [
    Rule(
        "train.objective",
        lambda c: not _classifies(c) or c.data.format is Format.labelled,
        "it learns classes, and these rows have completions",
        "Take data with format=labelled, or train.objective=completion.",
    ),
    Rule(
        "train.objective",
        lambda c: not _classifies(c) or c.model.classes is not None,
        "it needs a base with a head for classes, and this one writes tokens",
        "Set classes: 2 (as many as data.classes has) in a file of conf/model with a name of its "
        "own.",
    ),
    Rule(
        "train.objective",
        lambda c: _classifies(c) or c.model.classes is None or c.data.format is not Format.labelled,
        "the base has a head for classes and the rows have them, which this objective does not "
        "learn", "Set train.objective=classification.",
    ),
    Rule(
        "model.classes",
        lambda c: c.model.classes is None or c.data.format is Format.labelled,
        "a base with a head for classes writes no tokens, so that it can neither learn completions "
        "nor be asked for text", "Take data with format=labelled, or another base.",
    ),
    Rule(
        "data.format",
        lambda c: c.model.classes is not None or c.data.format is not Format.labelled,
        "rows with classes need a base with a head for them, and this one writes tokens",
        "Set classes: 2 (as many as data.classes has) in a file of conf/model with a name of its "
        "own.",
    ),
    Rule(
        "model.classes",
        lambda c: c.model.classes is None or c.model.classes == len(c.data.classes),
        "the base has a head for another number of classes than data.classes names",
        "Give both the same number.",
    ),
    Rule(
        "evaluate.lm_eval_tasks",
        lambda c: c.model.classes is None or not c.evaluate.lm_eval_tasks,
        "lm-eval's tasks ask for text, and a base with a head for classes writes none",
        "Empty the list.",
    ),
    Rule(
        "train.qat",
        lambda c: c.model.classes is None or c.train.qat is None,
        "no step of a base with a head for classes can compute with rounded merged weights",
        "Leave it out.",
    ),
    Rule(
        "adapter.targets",
        lambda c: c.model.classes is None or c.adapter.targets is not Targets.sequence,
        "a head for classes reads the first or last token's state, and nothing can be put in front "
        "of that", "Take another method, such as LoRA.",
    ),
    Rule(
        "adapter.init",
        lambda c: c.model.classes is None
        or not hasattr(c.adapter, "init")
        or not (c.adapter.subtracts() or c.adapter.reads_samples()),
        "beside a head for classes adapters begin as PEFT draws them, without reading",
        "Take adapter.init=kaiming, gaussian or orthogonal.",
    ),
    Rule(
        "serve",
        lambda c: c.model.classes is None
        or c.serve is None
        or not c.serve.reads_rows,
        "it reads completions to choose its codes or scales, and these rows have classes",
        "Take another mode, such as serve=w8a8_dynamic or int8_sym.",
    ),
]  # fmt: skip
"""What a head for classes goes with, in other groups: judged where a trial is declared, as a base
is prepared for any data."""
