"""experiments/settled.json: what a settling asked for, and how far the answer stands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lorascope.config import Config, Search
from lorascope.errors import ConfigError, LorascopeError, RecordError
from lorascope.files.layout import Layout
from lorascope.files.replacing import write_atomically
from lorascope.study.declared import declare_trial

LEAST_SEEDS = 2


def require_settleable(configs: Sequence[Config]) -> None:
    """Refuse a settling over one seed.

    Raises:
        ConfigError: search=settle, and fewer than two seeds are declared.
    """
    seeds = sorted({config.seed for config in configs})
    if configs[0].search is Search.settle and len(seeds) < LEAST_SEEDS:
        raise ConfigError(
            "seed", ",".join(map(str, seeds)), "search=settle judges over seeds, and one says "
            "nothing of others", 'Declare two or more, such as seed: "0,1,2,3,4,5".',
        )  # fmt: skip


def write_settled(search: Search, content: dict[str, Any], layout: Layout) -> None:
    """No time and no place stands in it: what is settled the same way has the same bytes."""
    text = json.dumps({"search": search.value, **content}, indent=2, sort_keys=True) + "\n"
    write_atomically(layout.settled, text.encode())


def only_needed(configs: Sequence[Config], layout: Layout) -> list[Config]:
    """Those of `configs` that are trained: all of a grid, or what a settling asked for.

    Raises:
        LorascopeError: nothing was settled yet, or another grid was.
    """
    settles = [config for config in configs if config.search is Search.settle]
    if not settles:
        return list(configs)
    names, others = _asked_for(layout)
    declared = {declare_trial(config, layout).name: config for config in settles}
    if strange := declared.keys() - names - others:
        raise LorascopeError(
            f"search=settle: {min(strange)} is not of the grid that was settled. Run `lorascope "
            "settle` with the same settings, or name search=grid to train every trial that you ask "
            "for."
        )
    kept = [config for name, config in declared.items() if name in names]
    quant = ",".join(dict.fromkeys(config.quant.name for config in configs))
    print(f"{quant}: {len(kept)} of {len(declared)} trials are needed (search=settle)", flush=True)
    return kept


def read_settled(layout: Layout) -> dict[str, Any]:
    """What was settled; empty where nothing was.

    Raises:
        RecordError: the file cannot be read.
    """
    try:
        content = json.loads(layout.settled.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RecordError(
            f"{layout.settled.relative_to(layout.root)}: not readable ({error}). "
            "`lorascope settle` writes it anew from the records."
        ) from error
    return content if isinstance(content, dict) else {}


def _asked_for(layout: Layout) -> tuple[set[str], set[str]]:
    """The names of the trials that are needed, and of the others of the same grid."""
    content = read_settled(layout)
    if "needed" not in content:
        raise LorascopeError(
            "search=settle: nothing is settled yet. Run `lorascope settle search=settle`, which "
            "trains what the answer needs, or name search=grid to train every declared trial."
        )
    return set(content["needed"]), {*content["wanted"], *content["unneeded"]}
