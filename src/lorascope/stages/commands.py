"""The table of commands: what each is for, what of the grid it looks at, and its own flags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Points = Literal["begins", "none", "itself", "one", "sweep", "study", "grid"]
"""Points of the grid that a command looks at: none, where there may be no project yet; none of one;
those that it composes itself, where it must; one; one or, with -m, several; all of one study
(params.yaml, with overrides in place of its axes); all of a grid that may span several studies."""


@dataclass(frozen=True)
class Command:
    """One line of the table of commands."""

    words: str
    """Its lines in `lorascope --help`."""
    points: Points
    in_dvc: bool = False
    flags: Mapping[str, str] = field(default_factory=dict)
    """The command's own flags, each with an example of its value, or without one."""
    then: str = ""
    """What a person runs next, where nothing went wrong; DVC knows it by itself."""


JSON = {"--json": ""}
"""The flag of commands that return a `CommandResult`: its content is all that they print."""

COMMANDS = {
    "init": Command(
        "begin a study in this folder: lorascope init model=FOLDER data=FILE, or owner/name of\n"
        "the hub; looks at both, writes params.yaml, dvc.yaml and files of conf/",
        "begins", flags={"--no-scm": "", "--overwrite": ""},
        then="`lorascope look --rows 3`, then `dvc repro`",
    ),
    "check": Command(
        "judge params.yaml, conf/, sources and device before anything expensive starts",
        "study", in_dvc=True, flags=JSON,
        then="`lorascope plan` says what it will need, `dvc repro` runs it",
    ),
    "prepare-base": Command(
        "fetch, check or pre-train the full-precision base", "one", in_dvc=True,
        then="`lorascope prepare-data`",
    ),
    "prepare-data": Command(
        "render, split and describe the dataset", "one", in_dvc=True,
        then="`lorascope quantize-base quant=MODE`, once for each mode",
    ),
    "quantize-base": Command(
        "store the base in one mode, a file of conf/quant (quant=fp16, int8, nf4, int4_sym, ...)",
        "one", in_dvc=True, then="`lorascope train-lora -m`, as soon as all modes are stored",
    ),
    "settle": Command(
        "with search=settle: train and score what the answer needs, cheapest first",
        "study", in_dvc=True, then="`lorascope report`",
    ),
    "train-lora": Command(
        "train trials; -m sweeps: -m quant=nf4 lora.rank=1,8,64 lora.alpha=16,32",
        "sweep", in_dvc=True, then="`lorascope evaluate` with the same words scores them",
    ),
    "evaluate": Command(
        "score the bare base and trials; -m as above", "sweep", in_dvc=True,
        then="`lorascope status` says what is missing, `lorascope report` compares",
    ),
    "merge": Command(
        "merge the trial that `ship` in params.yaml names, and verify the result",
        "study", in_dvc=True, then="`lorascope report`, or `lorascope export to=FOLDER`",
    ),
    "quantize-merged": Command(
        "store the shipped model in the form that `serve` names, and verify it as it is loaded\n"
        "again from disk",
        "study", in_dvc=True, then="`lorascope report`",
    ),
    "report": Command(
        "write reports/ from the records; with --require-answer it ends with 1 where nothing is\n"
        "to be shipped",
        "study", in_dvc=True, flags={**JSON, "--require-answer": ""},
        then="`lorascope summary` prints it again, with scores; reports/report.html shows why",
    ),
    "look": Command(
        "some rows as they will be trained, lengths, what would be dropped: lorascope look\n"
        "data=mine; needs nothing prepared",
        "study", flags={"--rows": "10"},
        then="`dvc repro` runs the study",
    ),
    "inventory": Command(
        "list what a study outside a clone reads of lorascope, for its dvc.yaml", "none"
    ),
    "publish": Command(
        "fill MLflow from the records; register=NAME makes the shipped adapter a version of a\n"
        "registered model, to=tensorboard or to=wandb writes files for those in exports/",
        "none",
    ),
    "ui": Command(
        "open MLflow on this machine's loopback address; port=5001 for another port", "none"
    ),
    "status": Command(
        "how far the study is, what failed, what to run next; also while it runs. Ends with 0\n"
        "where nothing is left to run, else with 1",
        "grid", flags=JSON,
    ),
    "adopt": Command(
        "trials of a former identity that pass for declared ones; with --yes they become those,\n"
        "with --assume-equal also where only you know that their values are the same",
        "study", flags={"--yes": "", "--assume-equal": ""},
    ),
    "prune": Command(
        "trials, scores and leftovers that no declared grid names; deletes with --yes only",
        "grid", flags={"--yes": ""},
    ),
    "summary": Command("print answer and scores of the study in params.yaml", "itself"),
    "generate": Command(
        'what a trial writes: lorascope generate trial=nf4-r0008 prompt="..."; without trial= the\n'
        "shipped one, with trial=base the bare base; tokens=, temperature= and seed= as you like",
        "none",
    ),
    "chat": Command("the same on the terminal, question by question; Ctrl-D ends it", "none"),
    "export": Command(
        "the shipped trial, or trial=NAME, for others to load: lorascope export to=FOLDER\n"
        "form=adapter, merged or gguf; checked, with a model card; push=OWNER/NAME shows what the\n"
        "hub would get",
        "none",
    ),
    "count": Command(
        "trainable parameters by rank and method, from the model's configuration alone:\n"
        "lorascope count model=llama2_7b_chat --ranks 1,8,64",
        "grid",
        flags={"--ranks": "1,8,64", "--methods": "full,ia3", "--target-parameters": "down_proj"},
    ),
    "plan": Command(
        "memory of every trial of the grid before it runs, and what fits which GPU:\n"
        "lorascope plan model=llama2_7b_chat quant=fp16,nf4 lora.rank=8,64\n"
        "ends with 0 where all fit, 1 where one does not, 2 where that is unknown",
        "grid", flags=JSON,
    ),
}  # fmt: skip
