"""What is asked of `export`: read, or refused with what to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from lorascope.config import Precision
from lorascope.errors import ConfigError
from lorascope.study.asked_export import read_asked


def test_an_adapter_that_is_sent_nowhere_is_what_little_asks_for() -> None:
    asked = read_asked({"to": "mine"})
    assert (asked.to, asked.form) == (Path("mine").absolute(), "adapter")
    assert (asked.precision, asked.overwrite, asked.push) == (None, False, None)
    assert (asked.private, asked.dry_run) == (True, True)
    merged = read_asked({"to": "m", "form": "merged", "precision": "bfloat16", "dry_run": "false"})
    assert (merged.precision, merged.dry_run) == (Precision.bfloat16, False)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"to": ""}, "to=../mine-adapter"),
        ({"form": "onnx"}, "adapter, merged, gguf"),
        ({"precision": "float16"}, "form=merged"),
        ({"form": "merged", "precision": "auto"}, "float32, float16, bfloat16|bfloat16, float16"),
        ({"overwrite": "yes"}, "overwrite=true"),
        ({"license": "mit -->"}, "license=apache-2.0"),
        ({"base": "a\nb"}, "base=owner/name"),
        ({"base": ""}, "base=owner/name"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_write(values: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        read_asked({"to": "mine", **values})
