"""plan: what every trial of the grid needs, before it runs, and on which GPUs it fits."""

from __future__ import annotations

from collections.abc import Sequence

from lorascope.config import Config, one_form
from lorascope.files.layout import Layout
from lorascope.machine.libraries import quiet_libraries
from lorascope.planning.planned import planned_trials, unpadded_peak_bytes
from lorascope.planning.table import capacities, conditions, details, reserve, table
from lorascope.records import MemoryPlan


def command(configs: Sequence[Config], layout: Layout, *_: object) -> list[MemoryPlan]:
    """Print the plans of `configs`, one line a trial, and return those that could be made; a trial
    that cannot be planned has a line that says why. Of a single one the details are shown too.

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
        print(capacities(planned[0], made[0]).plain(), end="")
    print(reserve(planned), end="")
    return [prediction.plan for prediction in made]
