"""Answers that are kept to be read: their file. No torch: reports read this too."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from lorascope.errors import RecordError
from lorascope.files.layout import EXAMPLES_FILE
from lorascope.files.replacing import write_atomically
from lorascope.files.store import require_content
from lorascope.records import Example, ExamplesRecord

_EXAMPLE = TypeAdapter(Example)


def write_examples(folder: Path, examples: Sequence[Example]) -> None:
    """Write one JSON object a line, keys sorted: equal answers give equal bytes."""
    lines = [json.dumps(asdict(example), sort_keys=True) + "\n" for example in examples]
    write_atomically(folder / EXAMPLES_FILE, "".join(lines).encode("ascii"))


def read_examples(record: ExamplesRecord, folder: Path) -> list[Example]:
    """Read what `write_examples` wrote; RecordError where it is missing, damaged or not what the
    record says."""
    again = f"Delete {folder} and run `lorascope evaluate` with the same settings again."
    path = folder / EXAMPLES_FILE
    require_content(path, record.examples_sha256, again)
    examples = []
    for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
        try:
            examples.append(_EXAMPLE.validate_python(json.loads(line)))
        except (ValueError, ValidationError) as error:
            raise RecordError(f"{path}, line {number}: not a kept answer. {again}") from error
    return examples
