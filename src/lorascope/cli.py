"""The command line: `lorascope <command> [Hydra overrides]`. Only stages load heavy libraries."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout, find_layout
from lorascope.study.flags import refuse_arguments, refuse_foreign_flags, take_apart

USAGE = """\
lorascope: which LoRA rank, alpha and quantization mode to ship.

usage: lorascope <command> [Hydra overrides]

stages, in the order in which dvc.yaml runs them:
  check          judge params.yaml, conf/, sources and device before anything expensive starts
  prepare-base   fetch, check or pre-train the full-precision base
  prepare-data   render, split and describe the dataset
  quantize-base  store the base in one mode (quant=fp16, int8, nf4, nf4_dq, fp32, bf16, fp4)
  train-lora     train trials; -m sweeps: -m quant=nf4 lora.rank=1,8,64 lora.alpha=16,32
  evaluate       score the bare base and trials; -m as above
  merge          merge the trial that `ship` in params.yaml names, and verify the result
  report         write reports/ from the records

beside them:
  publish        fill MLflow from the records
  ui             open MLflow on this machine's loopback address; port=5001 for another port
  status         how far the study is, what failed, what to run next; also while it runs
  prune          trials, scores and leftovers that no declared grid names; deletes with --yes only
  summary        print answer and accuracy table of the study in params.yaml
  count          trainable parameters by rank and method, from the model's configuration alone:
                 lorascope count model=llama2_7b_chat --ranks 1,8,64
  plan           memory of every trial of the grid before it runs, and what fits which GPU:
                 lorascope plan model=llama2_7b_chat quant=fp16,nf4 lora.rank=8,64

check, merge, report, status, summary, count and plan read the grid from params.yaml; overrides
replace its axes. prune keeps what params.yaml names, and what overrides name too.
`lorascope <command> --help` shows the configuration that a command composes.
"""

HYDRA_STAGES = ("prepare-base", "prepare-data", "quantize-base", "train-lora", "evaluate")
GRID_STAGES = ("check", "merge", "report", "summary", "plan")
FLAG_COMMANDS = ("count", "status", "prune")
SWEEPING_STAGES = ("train-lora", "evaluate")
EXIT_BAD_INPUT = 2


def main() -> None:
    """Entry point of the `lorascope` command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return
    command, rest = arguments[0], arguments[1:]
    # bitsandbytes decorates fallbacks of its kernels with torch.compile, which imports a compiler
    # that nothing here uses: a sixth of all imports.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # A polite kill takes the same way out as Ctrl-C: children end, scratch folders go.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        sys.exit(_dispatch(command, rest))
    except LorascopeError as error:
        _tell(error)
        sys.exit(EXIT_BAD_INPUT)
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough. Nothing may be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        _exit_on_disk_fault(error)
        raise
    except KeyboardInterrupt:
        print("lorascope: interrupted; finished trials are kept.", file=sys.stderr)
        sys.exit(130)
    finally:
        # The interpreter would look through all that libraries made, for up to two seconds, to give
        # back one by one what the system takes back at once.
        gc.freeze()


def _tell(error: LorascopeError) -> None:
    from lorascope.files.confidential import without_secrets

    print(f"lorascope: error: {without_secrets(str(error))}", file=sys.stderr, flush=True)


def _exit_on_disk_fault(error: Exception) -> None:
    """Say so and exit; any other error is left to its stack."""
    from lorascope.files.disk_faults import disk_fault

    fault = disk_fault(error)
    if fault is None:
        return
    _tell(LorascopeError(fault))
    raise SystemExit(EXIT_BAD_INPUT) from error


def _dispatch(command: str, rest: list[str]) -> int:
    if command in HYDRA_STAGES:
        layout = find_layout(Path.cwd())
        with _training_imported(command, rest):
            _run_hydra_stage(command, rest, layout)
        return 0
    if rest and rest[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if command in FLAG_COMMANDS:
        _function(command, "run_with_flags")(rest, find_layout(Path.cwd()))
        return 0
    if command in GRID_STAGES:
        from lorascope.study.grid_commands import run_grid_command

        run_grid_command(command, rest, find_layout(Path.cwd()))
        return 0
    if command == "publish":
        from lorascope.stages.publish import run as publish

        refuse_arguments(command, rest)
        return publish(find_layout(Path.cwd()))
    if command == "ui":
        from lorascope.stages.ui import run_with_settings as open_ui

        return open_ui(rest, find_layout(Path.cwd()))
    raise LorascopeError(f"no command {command!r}. `lorascope --help` lists them.")


def _run_hydra_stage(command: str, rest: list[str], layout: Layout) -> None:
    import hydra
    from omegaconf import DictConfig

    from lorascope.study.composing import object_of, register_schema, told_plainly
    from lorascope.study.grid import compose_jobs, expand
    from lorascope.study.overrides import read_overrides, refuse_sweep

    register_schema()
    given = take_apart(rest)
    refuse_foreign_flags(command, given.flags)
    if given.sweeps and command not in SWEEPING_STAGES:
        raise LorascopeError(f"{command} runs one configuration: leave out -m.")
    read = read_overrides(given.overrides, layout)
    if not given.asks_only:
        if not given.sweeps:
            refuse_sweep(command, read, command in SWEEPING_STAGES)
        # The whole sweep is judged before its first job starts.
        expand(layout, given.overrides)
        # Hydra makes it too, but shows a stack where it cannot.
        layout.hydra.mkdir(parents=True, exist_ok=True)

    def job(composed: DictConfig) -> None:
        with _told_without_stack():
            # The stage's own imports are not paid for by --help.
            _function(command, "run")(object_of(composed), layout)

    def run_jobs(jobs: Sequence[Sequence[str]]) -> list[None]:
        with _told_without_stack():
            _function(command, "run_sweep")(compose_jobs(layout, jobs), layout)
        return [None] * len(jobs)

    # What `hydra/launcher=packed` calls.
    job.run_jobs = run_jobs  # type: ignore[attr-defined]
    sys.argv = [f"lorascope {command}", *rest]
    # Else Hydra prints stacks itself, of files that are no YAML too.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    with told_plainly(layout):
        hydra.main(version_base="1.3", config_path=str(layout.conf), config_name="config")(job)()


@contextmanager
def _training_imported(command: str, rest: Sequence[str]) -> Iterator[None]:
    """Libraries take seconds to import, which begins here, while the sweep is judged; not where
    CUDA may be used, as there each child imports them itself, nor where Hydra's own settings are
    changed: another launcher has other processes, and an environment for jobs must reach them."""
    if command != "train-lora" or take_apart(rest).asks_only:
        yield
        return
    from lorascope.config import DeviceKind
    from lorascope.execution.local.process import end_fork_server, start_imports
    from lorascope.execution.local.slots import PRELOADED, may_use_cuda

    own_settings = any(argument.lstrip("+~").startswith("hydra") for argument in rest)
    try:
        if not own_settings and not may_use_cuda(DeviceKind.auto):
            start_imports(PRELOADED)
        yield
    finally:
        end_fork_server()


@contextmanager
def _told_without_stack() -> Iterator[None]:
    """Hydra would print a traceback for an exception, and go on after it."""
    try:
        yield
    except LorascopeError as error:
        _tell(error)
        raise SystemExit(EXIT_BAD_INPUT) from error
    except Exception as error:
        _exit_on_disk_fault(error)
        raise


def _function(command: str, name: str) -> Callable[..., object]:
    """A function of the command's stage; its module is imported by name so that only its code
    loads."""
    from importlib import import_module

    module = import_module(f"lorascope.stages.{command.replace('-', '_')}")
    function: Callable[..., object] = getattr(module, name)
    return function
