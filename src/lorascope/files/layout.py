"""Where everything lies: the only place that knows paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lorascope.errors import LorascopeError

RECORD = "record.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
DISTRIBUTIONS = "test_distributions.npy"
EXAMPLES = "examples"
"""Among the scores of a mode, where no trial is called so: the answers that are kept to be read."""
EXAMPLES_FILE = "examples.jsonl"
DVC_COPIES = (".dvc", "tmp", "exps")
"""Where DVC makes the copy in which `dvc exp run --temp` and its queue run."""
VOCABULARY = Path(__file__).parents[1] / "conf"
"""What every study can choose, as it comes with the package; in a clone, the clone's own conf/."""
SPLITS = ("train", "validation", "test")
FORGETTING = "forgetting"
"""Among prepared rows, the folder of those that may be forgotten; among scores, what trials have on
them."""


@dataclass(frozen=True)
class Layout:
    """The folders of one project."""

    root: Path

    @property
    def conf(self) -> Path:
        """The project's own choices."""
        return self.root / "conf"

    @property
    def conf_folders(self) -> tuple[Path, Path]:
        """Where a file of conf/ is looked for, the project's own first."""
        return self.conf, VOCABULARY

    def choices(self, group: str) -> dict[str, Path]:
        """Name -> file of all that can be chosen of a group."""
        own, packaged = (sorted((place / group).glob("*.yaml")) for place in self.conf_folders)
        return {path.stem: path for path in (*packaged, *own)}

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def decision(self) -> Path:
        """The last report's answer, for machines."""
        return self.reports / "decision.json"

    @property
    def private(self) -> Path:
        """Locks, logs and what can be made again."""
        return self.root / ".lorascope"

    @property
    def locks(self) -> Path:
        return self.private / "locks"

    @property
    def last_summary(self) -> Path:
        """What `summary` printed last, with a stamp of what it was made of."""
        return self.private / "summary.json"

    @property
    def kept(self) -> Path:
        """What was read and worked out of records."""
        return self.private / "kept"

    @property
    def kept_points(self) -> Path:
        """The points that conf/ and params.yaml declare."""
        return self.private / "kept-points"

    @property
    def hydra(self) -> Path:
        """What Hydra takes for its output: conf/config.yaml names it too."""
        return self.private / "hydra"

    @property
    def checkpoints(self) -> Path:
        """A folder for each unfinished trial that keeps checkpoints, called by its identity."""
        return self.private / "checkpoints"

    @property
    def jobs(self) -> Path:
        """A folder for each pack that another computer trains, and what its queue writes."""
        return self.private / "jobs"

    @property
    def settled(self) -> Path:
        """Which trials the answer needs, where not all declared ones are trained."""
        return self.root / "experiments" / "settled.json"

    @property
    def inventory(self) -> Path:
        """By which DVC knows what a study outside a clone reads of the installed lorascope."""
        return self.root / "experiments" / "inventory"

    def stored(self, quant: str) -> Path:
        """A file a mode, by which DVC knows that a mode's base changed."""
        return self.root / "experiments" / "stored" / f"{quant}.json"

    def data(self, model: str, data: str) -> Path:
        """Prepared rows: they carry the model's chat template and special tokens."""
        return self.root.joinpath("data", data, model)

    def base(self, model: str) -> Path:
        """The full-precision base."""
        return self.root.joinpath("models", model, "base")

    def quantized(self, model: str, quant: str) -> Path:
        """The base in one mode."""
        return self.root.joinpath("models", model, quant)

    def merged(self, model: str) -> Path:
        """The shipped model."""
        return self.root / "models" / model / "merged"

    def served(self, model: str) -> Path:
        """The shipped model in the form that it is served in."""
        return self.root / "models" / model / "served"

    def trials(self, quant: str) -> Path:
        """All trials of one mode."""
        return self.root.joinpath("experiments", "train", quant)

    def evaluations(self, quant: str) -> Path:
        """All evaluations of one mode."""
        return self.root.joinpath("experiments", "evaluate", quant)

    def examples(self, quant: str) -> Path:
        """Answers of the bare base and the leading trials of one mode, called as their scores."""
        return self.evaluations(quant) / EXAMPLES


def find_layout(start: Path) -> Layout:
    """The project that holds `start`: the nearest folder upwards with conf/ and params.yaml.

    Raises:
        LorascopeError: there is none, or it is a copy that DVC will delete.
    """
    start = start.absolute()
    for folder in (start, *start.parents):
        if (folder / "conf").is_dir() and (folder / "params.yaml").is_file():
            _refuse_passing(folder)
            return Layout(folder)
    raise LorascopeError(
        f"{start}: not inside a lorascope project (no folder upwards has conf/ and params.yaml). "
        "Change into the folder of your study, or begin one here: `lorascope init`."
    )


def _refuse_passing(folder: Path) -> None:
    """Trials persist beside DVC's cache, so that a checkout leaves them alone; of a copy that DVC
    deletes after the run, it would take reports along and nothing that was trained."""
    if any(above.parts[-len(DVC_COPIES) :] == DVC_COPIES for above in folder.parents):
        raise LorascopeError(
            f"{folder}: a copy of the project that DVC deletes after the run, with all that is "
            "trained in it: trials are kept in the project, not in DVC's cache. Run `dvc exp run` "
            "without --temp and without the queue; only what is missing is trained."
        )
