"""The command line: `lorascope <command> [Hydra overrides]`. Only stages load heavy libraries."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from difflib import get_close_matches
from pathlib import Path

import lorascope.quantizers  # noqa: F401 (keeps what is imported later quiet)
from lorascope.config import Config
from lorascope.errors import LorascopeError
from lorascope.files.layout import Layout, find_layout
from lorascope.stages.commands import COMMANDS, JSON, Command

EXIT_BAD_INPUT, EXIT_FAULT = 2, 3
"""1 is a command's own: what it looked for is not so."""


Run = Callable[[Sequence[Config], Layout, Mapping[str, str], Sequence[str]], object]
"""The function `command` in a command's module of `stages/`: points of the grid, the project, the
command's own flags, and the overrides as they were typed. It returns the exit code, or what it
made."""


def usage() -> str:
    """What `lorascope --help` prints."""
    return f"""\
lorascope: which LoRA rank, alpha and quantization mode to ship.

usage: lorascope <command> [Hydra overrides]

stages, in the order in which dvc.yaml runs them:
{_listed(in_dvc=True)}
beside them:
{_listed(in_dvc=False)}
A command takes from params.yaml what the command line does not say; overrides replace its axes.
prune keeps what params.yaml names, and what overrides name too.
`lorascope <command> --help` shows the configuration that a stage composes, or a command's flags.
"""


def usage_of(name: str) -> str:
    """What `lorascope <command> --help` prints of a command that composes no single configuration;
    stages let Hydra show theirs."""
    row = COMMANDS[name]
    words = {"begins": "model=FOLDER data=FILE [settings of both]", "none": "[key=value]"}
    takes = words.get(row.points, "[Hydra overrides, in place of axes of params.yaml]")
    then = f"then: {row.then}\n" if row.then else ""
    return f"usage: lorascope {name} {takes}\n\n{_described(name, row)}{then}"


def _listed(in_dvc: bool) -> str:
    rows = COMMANDS.items()
    return "".join(_described(name, row) for name, row in rows if row.in_dvc is in_dvc)


def _described(name: str, row: Command) -> str:
    """A command's lines, its name before the first."""
    flags = " ".join(f"{flag} {example}".rstrip() for flag, example in row.flags.items())
    texts = [*row.words.splitlines(), *([f"flags: {flags}"] if flags else [])]
    return "".join(f"  {'' if n else name:<14} {text}\n" for n, text in enumerate(texts))


def main() -> None:
    """Entry point of the `lorascope` command."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return
    command, rest = arguments[0], arguments[1:]
    # Kernels for quantized weights have fallbacks that torch.compile decorates, which imports a
    # compiler that nothing here uses: a sixth of all imports.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # A polite kill takes the same way out as Ctrl-C: children end, scratch folders go.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        with _errors_as_sentences(as_json=bool(JSON.keys() & set(rest))):
            sys.exit(_dispatch(command, rest))
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has enough. Nothing may be flushed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_FAULT)
    except KeyboardInterrupt:
        print("lorascope: interrupted; finished trials are kept.", file=sys.stderr)
        sys.exit(130)
    finally:
        # The interpreter would look through all that libraries made, for up to two seconds, to give
        # back one by one what the system takes back at once.
        gc.freeze()


def _dispatch(name: str, rest: list[str]) -> int:
    row = COMMANDS.get(name)
    if row is None:
        near = get_close_matches(name, COMMANDS, n=2, cutoff=0.6)
        meant = f"Did you mean {' or '.join(near)}? " if near else ""
        raise LorascopeError(f"no command {name!r}. {meant}`lorascope --help` lists them.")
    is_stage = row.points in ("one", "sweep")
    if not is_stage and {"-h", "--help"} & set(rest):
        print(usage_of(name), end="")
        return 0
    code = (_run_stage if is_stage else _run_other)(name, row, rest)
    if code == 0 and not JSON.keys() & set(rest):
        _tell_next(row, rest)
    return code


def _run_other(name: str, row: Command, rest: list[str]) -> int:
    """A command that looks at no point of the grid, or at all of them."""
    if row.points == "begins":
        from lorascope.study.request import own_flags

        given = own_flags(name, rest, row.flags)
        return run_named(name, [], Layout(Path.cwd()), given.flags, given.overrides)
    layout = find_layout(Path.cwd())
    if row.points in ("none", "itself"):
        return run_named(name, [], layout, {}, rest)
    from lorascope.machine.forks import Forked
    from lorascope.machine.libraries import import_uncollected, uncollected

    def composed() -> tuple[list[Config], dict[str, str], list[str]]:
        # It imports Hydra.
        from lorascope.study.request import grid_points

        return grid_points(name, rest, row.flags, row.points == "study", layout)

    with uncollected():
        if name == "report":
            # A thousand points take a second to compose, as long as its imports: side by side.
            composing = Forked(composed)
            import_uncollected(_module_of(name))
            points, flags, overrides = composing.result()
        else:
            points, flags, overrides = composed()
    return run_named(name, points, layout, flags, overrides)


def _run_stage(name: str, row: Command, rest: list[str]) -> int:
    """A command that runs one point, or sweeps."""
    layout = find_layout(Path.cwd())
    from lorascope.study.request import run_stage, trains_here

    def run(configs: Sequence[Config]) -> None:
        # Hydra would print a stack for an error in a job, and go on after it.
        with _errors_as_sentences():
            run_named(name, configs, layout, {}, rest)

    with _imports_begun(name, rest, lambda: trains_here(rest, layout)):
        run_stage(name, rest, row.points == "sweep", layout, run)
    return 0


def run_named(
    name: str,
    configs: Sequence[Config],
    layout: Layout,
    flags: Mapping[str, str],
    overrides: Sequence[str],
) -> int:
    """Run a command's function. Its module is imported by name, so that only its code loads."""
    from lorascope.machine.environment import prepare_environment
    from lorascope.machine.libraries import import_uncollected

    for config in configs[:1]:
        prepare_environment(config.runtime)
    module = _module_of(name)
    import_uncollected(module)
    command: Run = sys.modules[module].command
    if JSON.keys() & flags.keys():
        return _run_as_json(lambda: command(configs, layout, flags, overrides))
    made = command(configs, layout, flags, overrides)
    return made if isinstance(made, int) else getattr(made, "exit_code", 0)


def _module_of(name: str) -> str:
    return f"lorascope.stages.{name.replace('-', '_')}"


def _run_as_json(run: Callable[[], object]) -> int:
    """Print the content of what `run` returns, and nothing else of what it prints."""
    from lorascope.study.command_result import CommandResult

    with redirect_stdout(io.StringIO()):
        made = run()
    assert isinstance(made, CommandResult)
    print(json.dumps(made.content, indent=2, allow_nan=False))
    return made.exit_code


def _tell_next(row: Command, rest: Sequence[str]) -> None:
    """What comes next, for a person; not among the output of a stage that DVC runs."""
    if not row.then or "DVC_STAGE" in os.environ:
        return
    from lorascope.study.request import take_apart

    if not take_apart(rest).asks_only:
        print(f"next: {row.then}", file=sys.stderr, flush=True)


def _imports_begun(
    name: str, rest: Sequence[str], trains_here: Callable[[], bool]
) -> AbstractContextManager[None]:
    """Training's libraries take seconds to import, which begins here, while the sweep is judged;
    not where Hydra's own settings are changed: another launcher has other processes, and an
    environment for jobs must reach them."""
    from lorascope.study.request import take_apart

    asks_hydra = any(word.lstrip("+~").startswith("hydra") for word in rest)
    if name != "train-lora" or asks_hydra or take_apart(rest).asks_only:
        return nullcontext()
    from lorascope.execution.local.slots import training_imports

    return training_imports(trains_here())


@contextmanager
def _errors_as_sentences(as_json: bool = False) -> Iterator[None]:
    """Errors that a person can act on end the process with a sentence, and with `as_json` with a
    document too; others keep their stack."""
    try:
        yield
    except Exception as error:
        from lorascope.files.confidential import without_secrets
        from lorascope.files.disk_faults import disk_fault

        told = str(error) if isinstance(error, LorascopeError) else disk_fault(error)
        if told is None:
            raise
        told = without_secrets(told)
        if as_json:
            print(json.dumps({"error": told}, indent=2), flush=True)
        print(f"lorascope: error: {told}", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_BAD_INPUT) from error
