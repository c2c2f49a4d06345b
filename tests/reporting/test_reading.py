"""What the page says that its numbers are."""

from __future__ import annotations

from lorascope.reporting.pages.reading import how_to_read


def test_loss_and_divergence_are_those_of_what_was_scored() -> None:
    said = {
        scoring: " ".join(str(part) for line in how_to_read(scoring) for part in line)
        for scoring in ("answer", "classes", "preference")
    }
    assert "Loss is the mean over completion tokens" in said["answer"]
    assert "next-token" in said["answer"]
    assert "cross-entropy of an item's class" in said["classes"]
    assert "token" not in said["classes"]
    assert "the tokens of chosen replies" in said["preference"]
