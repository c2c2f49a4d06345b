"""What must not be told: credentials and queries of addresses, and secrets of the environment."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "***"
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://[^\s'\"<>]+")
SECRET_NAMES = re.compile(r"(^|_)(PASSWORD|PASSWD|TOKEN|SECRET|KEY)$|(^|_)SECRET_")
"""Names of environment variables, such as HF_TOKEN and AWS_SECRET_ACCESS_KEY."""
SHORTEST_SECRET = 6
"""Characters: what is shorter is no secret, and stands in other words too."""
SHORTEST_PART = 4
"""The same for a part of an address that is known to be a credential."""


def public_address(address: str) -> str:
    """An address without user, password, query and fragment.

    A password that nobody escaped may hold any of `@/?#`, and then a parser takes its rest for host
    or path: all that stands before the last `@` goes, and where that `@` may belong to a query, the
    host goes too.
    """
    scheme, mark, _ = address.partition("://")
    if not mark:
        # A path, or an address that lacks its scheme.
        return _behind_user(address) if ":" in address.partition("@")[0] else address
    if scheme.startswith("sqlite"):
        # Of a file, whose name may hold the other marks; nobody logs in.
        return address.partition("?")[0]
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{scheme}://{HIDDEN}"
    if "@" in parts.query + parts.fragment:
        return f"{scheme}://{HIDDEN}"
    if not parts.netloc and scheme == "file":
        return f"{scheme}://{parts.path}"
    return f"{scheme}://{_behind_user(parts.netloc + parts.path)}"


def credentials_of(address: str) -> set[str]:
    """The parts of an address that `public_address` leaves out, as a message may quote them."""
    rest = address.partition("://")[2] or address
    user = rest.rpartition("@")[0]
    query = re.split(r"[?#]", rest, maxsplit=1)[1:]
    parts = {user, *re.split(r"[:/?#@]", user), user.partition(":")[2], *query}
    parts |= {value for text in query for _, value in parse_qsl(text)}
    written = {form for part in parts for form in (part, unquote(part), quote(part, safe=""))}
    return {part for part in written if len(part) >= SHORTEST_PART}


def _behind_user(place: str) -> str:
    return place.rpartition("@")[2]


def with_public_addresses(value: Any) -> Any:
    """Plain data with each address in each text made public."""
    if isinstance(value, dict):
        return {key: with_public_addresses(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_public_addresses(inner) for inner in value]
    if isinstance(value, str) and "://" in value:
        return ADDRESS.sub(lambda found: public_address(found.group()), value)
    return value


def without_secrets(text: str) -> str:
    """`text` with public addresses only, and without the values of secrets in the environment."""
    secrets = {
        value
        for name, value in os.environ.items()
        if SECRET_NAMES.search(name.upper()) and len(value) >= SHORTEST_SECRET
    }
    return hidden_in(with_public_addresses(text), secrets)


def hidden_in(text: str, secrets: set[str]) -> str:
    """`text` with `secrets` blotted out, the longest first: one may hold another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
