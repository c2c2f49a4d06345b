"""plan: what every trial of the grid needs, before it runs, and on which GPUs it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lorascope.config import Config, one_form
from lorascope.files.layout import Layout
from lorascope.machine.libraries import quiet_libraries
from lorascope.planning.planned import planned_trials, unpadded_peak_bytes
from lorascope.planning.table import capacities, conditions, details, devices, reserve, table
from lorascope.planning.verdict import exit_code, fits_of, verdict
from lorascope.records import MemoryPlan
from lorascope.study.command_result import CommandResult


@dataclass(frozen=True)
class Plans(CommandResult):
    """Those that could be made, and 0 where all trials fit, 1 where one does not, 2 where one could
    not be planned."""

    plans: list[MemoryPlan] = field(default_factory=list)


def command(configs: Sequence[Config], layout: Layout, *_: object) -> Plans:
    """Print the plans of `configs`, one line a trial; one that cannot be planned has a line that
    says why. Of a single one the details are shown too. Last whether all fit.

    Raises:
        LorascopeError: no trial can be planned; it is the first one's reason.
    """
    quiet_libraries()
    planned = planned_trials(one_form(configs), layout)
    made = [one.prediction for one in planned if one.prediction is not None]
    if not made:
        raise next(one.error for one in planned if one.error is not None)
    print(conditions(planned))
    print(table(planned).plain(), end="")
    if len(planned) == 1:
        print()
        print(details(made[0].plan, unpadded_peak_bytes(planned[0])))
        if made[0].plan.devices:
            print(devices(made[0].plan).plain(), end="")
        else:
            print(capacities(planned[0], made[0]).plain(), end="")
    print(reserve(planned), end="")
    fits = fits_of(planned)
    print(verdict(fits), end="")
    content = {"conditions": conditions(planned), "trials": [one.content() for one in fits]}
    return Plans(exit_code(fits), content, [prediction.plan for prediction in made])
