"""Public config.json files of well-known models, with the fields that decide shapes.

Each file is named after its model; values are those of the model's page on the hub.
"""

from __future__ import annotations

import json
from importlib.resources import files

from lorascope.errors import ConfigError


def known_config_names() -> list[str]:
    """The public configurations that come with lorascope, sorted."""
    names = (path.name for path in files(__name__).iterdir())
    return sorted(name.removesuffix(".json") for name in names if name.endswith(".json"))


def known_config(name: str) -> dict[str, object]:
    """One public config.json that comes with lorascope, e.g. llama-2-7b; else ConfigError."""
    names = known_config_names()
    if name not in names:
        raise ConfigError(
            "model.known_config",
            name,
            "no such configuration comes with lorascope",
            f"There are: {', '.join(names)}.",
        )
    values: dict[str, object] = json.loads((files(__name__) / f"{name}.json").read_text("utf-8"))
    return values
