"""`python -m benchmarks`: measure all rows, or those named, and write reports/benchmark.*

Rows that are not named stay as a former run on the same machine, with the same versions, wrote
them, so that the whole can be measured in pieces; each says of which commit it is. docs/speed.md
says how long each takes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from benchmarks.origin import REPOSITORY, commit, processor, versions
from benchmarks.table import AT_LEAST, Row, as_markdown, kept_rows, write_tables
from benchmarks.workload import QUICK, Size, Workload

MODULE_OF = {
    "startup": "command_rows",
    "sweep": "sweep_rows",
    "sweep_few_tokens": "sweep_rows",
    "evaluation": "evaluation_rows",
    "tracked_run": "training_rows",
    "tracking_share": "training_rows",
    "added_rank": "training_rows",
    "packed_steps": "packed_steps",
    "many_trials": "many_trials",
    "nothing_to_do": "command_rows",
    "real_steps": "real_rows",
    "real_sweep": "real_rows",
    "real_memory": "real_rows",
    "real_evaluation": "real_rows",
}
"""Row function -> module of this package, in the order of the table. A function takes the
Workload and returns rows that are named like it (`added rank`, `startup: help`)."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", nargs="+", choices=tuple(MODULE_OF), default=tuple(MODULE_OF))
    parser.add_argument(
        "--quick", action="store_true",
        help="a few steps, to see that it runs; prints the page and writes nothing",
    )  # fmt: skip
    cores = os.cpu_count() or 1
    parser.add_argument("--threads", type=int, default=cores, help="of lorascope's processes")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "reports")
    return parser.parse_args()


def main() -> None:
    """Measure and write. A goal that is missed is printed and is no error; a failed row is one."""
    given = arguments()
    # A polite kill takes the scratch folder along.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    size = QUICK if given.quick else Size()
    with tempfile.TemporaryDirectory(prefix="lorascope-benchmark-") as folder:
        workload = Workload(Path(folder), size, threads=given.threads, bare_threads=1)
        rows = [row for name in MODULE_OF if name in given.rows for row in measure(name, workload)]
    named = commit()
    rows = [
        replace(row, git_commit=named, processor=processor(), versions=versions()) for row in rows
    ]
    if given.quick:
        print(as_markdown(rows))
    else:
        write_tables(given.output, in_table_order([*rows, *kept_rows(given.output, rows)]))
    sys.exit(any(row.failure for row in rows))


def measure(name: str, workload: Workload) -> list[Row]:
    """The rows of one function; a failure of any kind is a row too, and the others go on."""
    print(f"{name} ...", flush=True)
    load = f"Load average before, own work included: {os.getloadavg()[0]:.1f}."
    started = time.perf_counter()
    try:
        function: Callable[[Workload], list[Row]] = getattr(
            import_module(f"benchmarks.{MODULE_OF[name]}"), name
        )
        rows = [replace(row, note=f"{row.note} {load}") for row in function(workload)]
    except Exception as error:
        told = f"{type(error).__name__}: {error}".replace(str(workload.folder), "")
        failure = " ".join(told.split())
        rows = [Row(display_name(name), "not measured", AT_LEAST, 0, "", failure=failure)]
    for row in rows:
        value = "" if row.value is None else f"{row.value:.4g} {row.unit}, "
        goal = "" if row.failure or row.goal is None else f"{row.bound} {row.goal:g}: "
        print(f"  {row.name}: {value}{goal}{row.verdict} {row.failure}", flush=True)
    print(f"  ({time.perf_counter() - started:.0f} s)", flush=True)
    return rows


def display_name(function: str) -> str:
    """How the rows of a function begin: 'added_rank' -> 'added rank'."""
    return function.replace("_", " ")


def in_table_order(rows: list[Row]) -> list[Row]:
    """The order of MODULE_OF, whichever run a row is of."""
    order = [display_name(function) for function in MODULE_OF]
    return sorted(rows, key=lambda row: order.index(row.name.partition(":")[0]))


if __name__ == "__main__":
    main()
