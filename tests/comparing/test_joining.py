from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lorascope.comparing.divergences import mean_divergence_nats
from lorascope.comparing.item_columns import join
from lorascope.errors import RecordError
from lorascope.records import ItemResult


def item(name: str, correct: bool | None = True, loss: float = 1.0, tokens: int = 2) -> ItemResult:
    return ItemResult(name, f"p{name}", f"t{name}", correct, loss, tokens)


def test_items_are_joined_on_their_hashes_whatever_their_order() -> None:
    first = [item("a", True), item("b", False), item("c", True)]
    second = [item("c", False), item("a", True), item("b", True)]
    joined = join([first, second])
    assert joined is not None
    assert joined.correct is not None
    assert joined.correct.tolist() == [[1, 0, 1], [1, 1, 0]]


def test_an_item_with_another_prompt_is_another_item() -> None:
    changed = replace(item("b"), prompt_sha256="other template")
    joined = join([[item("a"), item("b")], [item("a"), changed]])
    assert joined is not None
    assert joined.items == 1
    assert join([[item("b")], [changed]]) is None


def test_items_without_right_or_wrong_have_losses_only() -> None:
    joined = join([[item("a", None, 3.0, 1), item("b", None, 1.0, 3)]])
    assert joined is not None
    assert joined.correct is None
    assert joined.losses_per_token().mean() == pytest.approx(4.0 / 4)


def test_items_of_one_cluster_share_a_number_and_others_have_their_own() -> None:
    items = [replace(item(name), cluster=group) for name, group in zip("abcd", "xyx-", strict=True)]
    items[3] = replace(items[3], cluster=None)
    joined = join([items])
    assert joined is not None
    assert joined.clusters is not None
    assert joined.clusters[0] == joined.clusters[2]
    assert len(set(joined.clusters.tolist())) == joined.cluster_count == 3


def test_items_that_all_stand_alone_have_no_clusters() -> None:
    alone = [replace(item(name), cluster=name) for name in "ab"]
    joined = join([alone])
    assert joined is not None
    assert joined.clusters is None
    assert joined.cluster_count is None


def test_divergence_equals_the_textbook_sum(tmp_path: Path) -> None:
    p, q = (
        np.array([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]]),
        np.array([[0.4, 0.4, 0.2], [0.5, 0.5, 0]]),
    )
    with np.errstate(divide="ignore"):
        np.save(tmp_path / "p.npy", np.log(p).astype(np.float32))
        np.save(tmp_path / "q.npy", np.log(q).astype(np.float32))
    first = 0.5 * np.log(0.5 / 0.4) + 0.25 * np.log(0.25 / 0.4) + 0.25 * np.log(0.25 / 0.2)
    value = mean_divergence_nats(tmp_path / "p.npy", tmp_path / "q.npy")
    assert value == pytest.approx((first + np.log(2)) / 2, rel=1e-6)
    assert mean_divergence_nats(tmp_path / "p.npy", tmp_path / "p.npy") == 0


def test_divergence_of_other_tokens_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 4), dtype=np.float32))
    np.save(tmp_path / "b.npy", np.zeros((2, 4), dtype=np.float32))
    assert mean_divergence_nats(tmp_path / "a.npy", tmp_path / "b.npy") is None


def test_a_damaged_distribution_file_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(RecordError, match="lorascope evaluate"):
        mean_divergence_nats(tmp_path / "bad.npy", tmp_path / "bad.npy")
