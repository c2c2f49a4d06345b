"""The digest of settings, and which settings tell nothing of what is computed."""

from __future__ import annotations

import hashlib
import json

SHORT_HASH_LENGTH = 10
MADE_BY = ("code", "revisions")
"""Settings that say which code trained a trial; `code` in records from before revisions."""
DIGESTS = ("base", "data")
"""Settings that are digests of content."""


def canonical_sha256(value: object) -> str:
    """Digest of plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
