"""The way to a cluster of Ray, and what its nodes have."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from importlib.util import find_spec
from typing import Any

from lorascope.config import EngineConfig
from lorascope.errors import ConfigError
from lorascope.execution.places import Node, require_node

ANSWER_SECONDS = 10
CLIENT = "ray://"


def connect(engine: EngineConfig) -> None:
    """Become a driver of the cluster, once a process.

    Raises:
        ConfigError: ray is missing here, nothing answers at the address, or no node has what a task
            asks for.
    """
    if find_spec("ray") is None:
        raise ConfigError(
            "engine", "ray", "ray is not installed",
            "Run `pip install 'lorascope[ray]'`, here and on the nodes, or leave engine=ray out.",
        )  # fmt: skip
    # Nothing here phones home.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if not ray.is_initialized():
        _begin(ray, engine.address)
    require_node(engine, nodes(), "the cluster's nodes")


def _begin(ray: Any, address: str) -> None:
    # Ray itself would wait for minutes, and then end this process.
    found = _found(address)
    _require_answer(address, found)
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=found, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error).strip().partition("\n")[0]) from error
    finally:
        # What a signal does here is not Ray's to say.
        if threading.current_thread() is threading.main_thread():
            for number, handler in former.items():
                signal.signal(number, handler)


def _found(address: str) -> str:
    """host:port of the cluster, also where the address is `auto`."""
    if address.startswith(CLIENT):
        raise _no_cluster(address, "this computer has to be a node of the cluster, and no client")
    from ray._private.services import canonicalize_bootstrap_address_or_die

    try:
        return str(canonicalize_bootstrap_address_or_die(address))
    except (ConnectionError, ValueError, OSError) as error:
        raise _no_cluster(address, "no cluster is found there") from error


def _require_answer(address: str, found: str) -> None:
    host, _, port = found.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as error:
        raise _no_cluster(address, f"{found} does not answer ({error})") from error


def _no_cluster(address: str, problem: str) -> ConfigError:
    return ConfigError(
        "engine.address", address, problem,
        "Start Ray on the first computer with `ray start --head --port=6379`, on each other one, "
        "and here, with `ray start --address=HOST:6379`; then engine.address=auto finds it.",
    )  # fmt: skip


def nodes() -> list[Node]:
    """Those that live."""
    import ray

    found = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return [Node(one.get("CPU", 0), one.get("GPU", 0), one.get("memory", 0)) for one in found]
