"""Rules across the fields of a configuration, whatever the base and its rows."""

from __future__ import annotations

from lorascope.config import (
    GROUPED,
    OBSERVED,
    PAIRS,
    WHOLE,
    Cost,
    DataKind,
    Format,
    ModelKind,
    Observer,
    Precision,
    QuantConfig,
    Rounding,
    Scoring,
    Search,
    Storage,
    Targets,
    TemplateKind,
)
from lorascope.config.bounds import is_commit
from lorascope.config.decide import STATE_POWER, STATE_PRICE
from lorascope.config.objective_rules import OF_OBJECTIVES
from lorascope.config.place_rules import OF_PLACES
from lorascope.config.rule import PEOPLE, Rule
from lorascope.config.shard_rules import OF_SHARDS

NOT_PINNED = "not a commit hash of 40 hex digits, so the study could change under you"
KNOWN_BEFOREHAND = {Cost.serving_bytes, Cost.adapter_bytes}
"""Costs that are counted from shapes: nothing need be trained or planned."""
NOTHING_OBSERVED = "only storage=w8a8_static observes the inputs of layers"
COPY_HASH = "Copy the commit hash from its page on the hub."


RULES = [
    Rule(
        "data.scoring",
        lambda c: (c.data.scoring is Scoring.classes) == (c.data.format is Format.labelled),
        "data.format=labelled and data.scoring=classes go together",
        "Set both, or neither.",
    ),
    Rule(
        "data.classes",
        lambda c: c.data.format is not Format.labelled
        or len({name.strip() for name in c.data.classes} - {""}) == len(c.data.classes) >= 2,
        "data.format=labelled needs two or more different names, in the order of their numbers",
        "Write data.classes=[negative,positive].",
    ),
    Rule(
        "data.template",
        lambda c: c.data.format is not Format.labelled
        or (c.data.template is TemplateKind.plain and not c.data.system),
        "rows of format=labelled are read as they are: nobody speaks in them",
        "Leave data.template at plain and data.system empty.",
    ),
    Rule(
        "model.dropout",
        lambda c: c.model.dropout is None or c.model.classes is not None,
        "it is set when a base gets a head for classes", "Leave it out, or set model.classes.",
    ),
    Rule(
        "model.repository",
        lambda c: c.model.kind is not ModelKind.hub or bool(c.model.repository),
        "kind=hub needs a hub id", "Set repository: owner/name in the model's file.",
    ),
    Rule(
        "model.revision",
        lambda c: c.model.kind is not ModelKind.hub or is_commit(c.model.revision),
        NOT_PINNED, COPY_HASH,
    ),
    Rule(
        "model.path",
        lambda c: c.model.kind is not ModelKind.local or bool(c.model.path),
        "kind=local needs a folder",
        "Set path: to a folder with config, weights and tokenizer.",
    ),
    Rule(
        "model.start_from",
        lambda c: (c.model.kind is ModelKind.trial) == bool(c.model.start_from),
        "kind=trial, and no other, starts from a trial",
        "Set kind: trial and start_from: to the whole name of a trial, or neither.",
    ),
    Rule(
        "model.pretrain_steps",
        lambda c: c.model.kind is not ModelKind.tiny or c.model.pretrain_steps > 0,
        "kind=tiny is pre-trained here and needs steps", "Set it to 1 or more.",
    ),
    Rule(
        "data.repository",
        lambda c: c.data.kind is not DataKind.hub or bool(c.data.repository),
        "kind=hub needs a hub id", "Set repository: owner/name in the data's file.",
    ),
    Rule(
        "data.revision",
        lambda c: c.data.kind is not DataKind.hub or is_commit(c.data.revision),
        NOT_PINNED, COPY_HASH,
    ),
    Rule(
        "data.train",
        lambda c: c.data.kind in PEOPLE or bool(c.data.train),
        "no training rows named",
        "Set train: to a file (kind=local) or a split's name (kind=hub).",
    ),
    Rule(
        "quant.double_quantization",
        lambda c: not c.quant.double_quantization or c.quant.storage in (Storage.nf4, Storage.fp4),
        "only 4-bit storage has it", "Use storage nf4 or fp4, or turn it off.",
    ),
    Rule(
        "quant.group_size",
        lambda c: c.quant.group_size is None or c.quant.storage in GROUPED,
        "this storage has groups of its own", f"Leave it out, or use one of {', '.join(GROUPED)}.",
    ),
    Rule(
        "quant.observer",
        lambda c: c.quant.observer is Observer.min_max or c.quant.storage in OBSERVED,
        NOTHING_OBSERVED, "Leave it out, or use quant=w8a8_static.",
    ),
    Rule(
        "quant.percentile",
        lambda c: c.quant.percentile == QuantConfig.percentile
        or c.quant.observer is Observer.percentile,
        "only quant.observer=percentile cuts off a share of the inputs",
        "Leave it out, or set quant.observer=percentile.",
    ),
    Rule(
        "quant.calibration_rows",
        lambda c: c.quant.calibration_rows == QuantConfig.calibration_rows
        or c.quant.reads_rows,
        "only storage=w8a8_static and quant.rounding read rows",
        "Leave it out, or use quant=w8a8_static or int4_autoround.",
    ),
    Rule(
        "quant.rounding",
        lambda c: c.quant.rounding is Rounding.nearest or c.quant.storage in WHOLE,
        "only codes that are whole numbers, with a scale a group, are chosen so",
        f"Leave it out, or use one of {', '.join(WHOLE)}.",
    ),
    Rule(
        "quant.rounding_steps",
        lambda c: c.quant.rounding_steps == QuantConfig.rounding_steps
        or c.quant.rounding is Rounding.auto_round,
        "only quant.rounding=auto_round takes steps",
        "Leave it out, or set quant.rounding=auto_round.",
    ),
    Rule(
        "adapter.targets",
        lambda c: c.adapter.targets in c.adapter.presets,
        "this method does not train there",
        "Leave it out: the method's own conf/ files name what it trains.",
    ),
    Rule(
        "train.gradient_checkpointing",
        lambda c: c.adapter.recomputes or not c.train.gradient_checkpointing,
        "layers that run twice would put this method's keys and values there twice",
        "Leave it out, or take another method, such as prompt tuning.",
    ),
    Rule(
        "adapter.modules",
        lambda c: (c.adapter.targets is Targets.modules) == bool(c.adapter.modules),
        "a list of modules goes with targets=modules, and only with it",
        "Use adapter=modules adapter.modules=[q_proj,v_proj], or drop the list.",
    ),
    Rule(
        "adapter.rank",
        lambda c: getattr(c.adapter, "init", "") != "orthogonal"
        or getattr(c.adapter, "rank", 0) % 2 == 0,
        "adapter.init=orthogonal takes half of the rank for A and half for B",
        "Make it even, or take another adapter.init.",
    ),
    Rule(
        "adapter.init",
        lambda c: not c.adapter.trained_ends()
        or getattr(c.adapter, "init", "kaiming") in ("kaiming", "gaussian"),
        "PEFT begins head and embeddings in no such way",
        "Take adapter.init=kaiming or gaussian, or leave adapter.head and adapter.embeddings out.",
    ),
    Rule(
        "adapter.rank_pattern",
        lambda c: getattr(c.adapter, "init", "") != "orthogonal"
        or all(rank % 2 == 0 for rank in getattr(c.adapter, "rank_pattern", {}).values()),
        "adapter.init=orthogonal takes half of each rank for A and half for B",
        "Make them even, or take another adapter.init.",
    ),
    Rule(
        "train.steps",
        lambda c: (c.train.epochs is None) != (c.train.steps is None),
        "exactly one of train.steps and train.epochs says how long to train",
        "Set one, and the other to null.",
    ),
    Rule(
        "train.micro_batch_size",
        lambda c: c.train.micro_batch_size >= 1
        and c.train.batch_size % c.train.micro_batch_size == 0,
        "must be 1 or more and divide batch_size", "Make train.batch_size a multiple of it.",
    ),
    Rule(
        "train.patience",
        lambda c: c.train.patience == 0 or c.train.validate_every_steps > 0,
        "patience counts validations, and there are none while a trial is trained",
        "Set train.validate_every_steps, e.g. to 20, or train.patience=0.",
    ),
    Rule(
        "quant.compute",
        lambda c: c.train.qat is None
        or c.quant.compute in (Precision.auto, Precision.float32)
        or c.quant.storage.value not in list(Precision)
        or c.quant.storage.value == c.quant.compute.value,
        "train.qat rounds the weights that are stored, and computing in another 16-bit type would "
        "cast them first", "Leave it out, or take the mode of that type, such as quant=bf16.",
    ),
    Rule(
        "train.qat_group_size",
        lambda c: c.train.qat_group_size is None or c.train.qat is not None,
        "it is the group size of train.qat, which is not set",
        "Leave it out, or set train.qat, e.g. to int4_sym.",
    ),
    *OF_OBJECTIVES,
    *OF_SHARDS,
    *OF_PLACES,
    Rule(
        "merge.precision",
        lambda c: c.merge.precision is not Precision.auto,
        "a merged model needs a definite type", "Use float32, bfloat16 or float16.",
    ),
    Rule(
        "decide.price_per_hour",
        lambda c: c.decide.cost is not Cost.money or c.decide.price_per_hour is not None,
        "decide.cost=money needs a price", STATE_PRICE,
    ),
    Rule(
        "decide.price_per_hour",
        lambda c: c.decide.budget_money is None or c.decide.price_per_hour is not None,
        "decide.budget_money needs a price", STATE_PRICE,
    ),
    Rule(
        "decide.cost",
        lambda c: c.search is Search.grid or c.decide.cost in KNOWN_BEFOREHAND,
        "search=settle begins with what costs least, which is not known of this cost before it "
        "is trained", "Use serving_bytes or adapter_bytes, or search=grid.",
    ),
    Rule(
        "search",
        lambda c: c.search is Search.grid or c.serve is None,
        "it begins with what costs least to serve, and what a merged model weighs is known only "
        "once it is stored", "Take serve=apart, or search=grid.",
    ),
    Rule(
        "evaluate.forgetting",
        lambda c: c.forgetting is None or c.model.classes is None,
        "a base with a head for classes writes no tokens, whose loss could be measured",
        "Leave it out.",
    ),
    Rule(
        "evaluate.forgetting",
        lambda c: c.forgetting is None or c.forgetting.format not in (Format.labelled, *PAIRS),
        "its loss is that of texts or completions, and these rows are others",
        "Name data with completions, or with format=text.",
    ),
    Rule(
        "decide.max_forgetting_nats",
        lambda c: c.decide.max_forgetting_nats is None or c.evaluate.forgetting is not None,
        "nothing says what could be forgotten",
        "Set evaluate.forgetting to a file of conf/data, or leave the limit out.",
    ),
    Rule(
        "decide.max_forgetting_nats",
        lambda c: c.decide.max_forgetting_nats is None or c.search is Search.grid,
        "search=settle trains until accuracy is settled, and judges nothing else",
        "Take search=grid, or leave the limit out.",
    ),
    Rule(
        "decide.power_watts",
        lambda c: c.decide.cost is not Cost.energy or c.decide.power_watts is not None,
        "decide.cost=energy needs a power", STATE_POWER,
    ),
]  # fmt: skip
