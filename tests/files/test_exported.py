"""Exports are known again: by what they hold, whatever else lies beside it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from lorascope.errors import ConfigError
from lorascope.files.exported import CARD, files_sha256, is_there, marked


def test_hidden_files_are_no_part_of_an_export_and_all_others_are(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("a")
    lines = f"sub/a.txt\0{sha256(b'a').hexdigest()}\n"
    assert files_sha256(tmp_path) == sha256(lines.encode()).hexdigest()
    (tmp_path / CARD).write_text(marked("# mine", "it", tmp_path))
    (tmp_path / ".git").mkdir()
    for hidden in (".DS_Store", ".git/config", "sub/.hidden"):
        (tmp_path / hidden).write_text("x")
    assert is_there(tmp_path, "it", overwrite=False)
    assert not is_there(tmp_path, "it", overwrite=True)
    with pytest.raises(ConfigError, match="another export is there"):
        is_there(tmp_path, "another", overwrite=False)
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(ConfigError, match="its files were changed"):
        is_there(tmp_path, "it", overwrite=False)
