"""Reading raw rows: every file type, and what a person is told when one is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorascope.config import DataConfig, DataKind
from lorascope.data.files import read_file
from lorascope.data.prepare import check_source
from lorascope.data.sources import describe_source, read_source
from lorascope.errors import ConfigError, DataError

ROWS = [{"prompt": "a, b", "completion": "c"}, {"prompt": "é\nf", "completion": "g"}]


def write(root: Path, name: str, text: str) -> str:
    (root / name).write_text(text, encoding="utf-8")
    return name


def test_json_and_jsonl_and_csv_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    names = [
        write(tmp_path, "rows.json", json.dumps(ROWS)),
        write(tmp_path, "rows.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        write(tmp_path, "rows.csv", 'prompt,completion\n"a, b",c\n"é\nf",g\n'),
        "rows.parquet",
    ]
    for name in names:
        rows = read_file("data.train", name, tmp_path)
        assert [row.values for row in rows] == ROWS, name


def test_text_file_gives_one_row_a_line_and_skips_blank_ones(tmp_path: Path) -> None:
    rows = read_file("data.train", write(tmp_path, "rows.txt", "a||b \n\nc||d\n"), tmp_path)
    assert [row.values["text"] for row in rows] == ["a||b ", "c||d"]
    assert [row.place for row in rows] == ["rows.txt, line 1", "rows.txt, line 3"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("r.jsonl", '{"a": 1}\n{"a": \n', ["r.jsonl, line 2", "not valid JSON", "repair"]),
        ("r.json", '{"a": 1}', ["r.json", "dict", "list of objects"]),
        ("r.json", '[{"a": 1},\n{"a"}]', ["r.json, line 2", "not valid JSON"]),
        ("r.csv", "a,b\n1,2\n1,2,3\n", ["r.csv, line 3", "2 fields", "quotes"]),
        ("r.csv", "a,b\n1\n", ["r.csv, line 2", "2 fields"]),
        ("r.parquet", "no parquet", ["r.parquet", "not a readable Parquet file"]),
        ("r.txt", "\n\n", ["data.train='r.txt'", "no rows"]),
        ("r.jsonl", "", ["data.train='r.jsonl'", "no rows"]),
        ("r.csv", "a,b\n", ["data.train='r.csv'", "no rows"]),
        ("r.json", "[]", ["data.train='r.json'", "no rows"]),
        ("r.json", "", ["r.json", "blank text", "list of objects"]),
        ("r.json", '[{"a": 1}\n{"a": 2}]', ["r.json, line 2", "',' delimiter"]),
        ("r.json", '[{"a": 1},\n\n', ["r.json, line 3", "not valid JSON", "cut off"]),
        ("r.json", '[{"a": 1}]\n[]', ["r.json, line 2", "Extra data", ".jsonl"]),
        ("r.jsonl", '{"a": ' + "9" * 5000 + "}", ["r.jsonl, line 1", "4300 digits"]),
        ("r.json", "[" * 100_000, ["r.json", "recursion"]),
        ("r.csv", "a,a\n1,2\n", ["r.csv, line 1", "'a' twice"]),
        ("r.csv", "a;b\n1;2\n", ["r.csv, line 1", "'a;b'", "separated by commas"]),
        ("r.csv", 'a,b\n1,"2\n', ["r.csv, line 2", "unexpected end of data", "quotes"]),
        ("r.csv", "a,b\n1,2\0\n", ["r.csv, line 2", "NUL", "UTF-16"]),
        ("r.txt", "a\0||b\n", ["r.txt, line 1", "NUL", "Convert the file to UTF-8"]),
    ],
)
def test_malformed_file_names_file_line_and_fault(
    tmp_path: Path, name: str, text: str, said: list[str]
) -> None:
    write(tmp_path, name, text)
    with pytest.raises(DataError) as error:
        read_file("data.train", name, tmp_path)
    for part in said:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "good", "bad"), [("r.jsonl", '{"a": 1}\n', '{"a"\n'), ("r.csv", "a,b\n", "1,2,3\n")]
)
def test_all_damaged_lines_are_told_at_once_up_to_ten(
    tmp_path: Path, name: str, good: str, bad: str
) -> None:
    write(tmp_path, name, good + bad * 12)
    with pytest.raises(DataError) as error:
        read_file("data.train", name, tmp_path)
    told = str(error.value)
    assert told.count(f"{name}, line ") == 10
    assert f"{name}, line 2: " in told
    assert f"{name}, line 11: " in told
    assert "and 2 more\n" in told


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends_of_windows_change_no_row(
    tmp_path: Path, mark: str, end: str
) -> None:
    texts = {
        "r.jsonl": '{"a": "x"}\n\n{"a": "y\u2028z"}\n',
        "r.json": '[\n{"a": "x"},\n\n{"a": "y\u2028z"}]\n',
        "r.csv": "a\nx\n\ny\u2028z\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes((mark + text.replace("\n", end)).encode())
        rows = read_file("data.train", name, tmp_path)
        assert [row.values for row in rows] == [{"a": "x"}, {"a": "y\u2028z"}], name
        assert "4" in rows[1].place or "3" in rows[1].place


def test_rows_of_a_json_list_know_their_lines(tmp_path: Path) -> None:
    write(tmp_path, "r.json", '[{"a": 1},\n {"a":\n 2}, {"a": 3}]')
    places = [row.place for row in read_file("data.train", "r.json", tmp_path)]
    assert places == ["r.json, row 1 (line 1)", "r.json, row 2 (line 2)", "r.json, row 3 (line 3)"]


def test_rows_that_are_whole_but_useless_are_passed_on_with_their_fault(tmp_path: Path) -> None:
    text = '{"a": {"b": 1, "b": 2}}\n[1]\n{"a": NaN}\n'
    write(tmp_path, "r.jsonl", text)
    write(tmp_path, "r.json", f"[{text.strip().replace(chr(10), ',')}]")
    for name in ("r.jsonl", "r.json"):
        faults = [row.fault for row in read_file("data.train", name, tmp_path)]
        assert faults == [
            "key 'b' stands twice in one object",
            "a list, where a JSON object with named columns belongs",
            "",
        ]


def test_a_csv_field_may_be_as_long_as_a_document(tmp_path: Path) -> None:
    write(tmp_path, "r.csv", f"a,b\n{'x' * 200_000},y\n")
    (row,) = read_file("data.train", "r.csv", tmp_path)
    assert len(str(row.values["a"])) == 200_000


def parquet(root: Path, **columns: object) -> str:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), root / "r.parquet")
    return "r.parquet"


def test_parquet_of_other_types_is_read_or_names_the_column(tmp_path: Path) -> None:
    import pyarrow

    name = parquet(tmp_path, prompt=["a"], completion=[b"b"], day=pyarrow.array([1], "date32"))
    config = DataConfig(name="x", train=name)
    with pytest.raises(DataError, match=r"row 1: completion=b'b' is a bytes, but must be text"):
        check_source(config, tmp_path)
    far = pyarrow.array([2**62], pyarrow.timestamp("us"))
    with pytest.raises(DataError, match=r"r\.parquet: column 'when' of type timestamp"):
        read_file("data.train", parquet(tmp_path, when=far), tmp_path)
    coded = pyarrow.array(["a", "a"]).dictionary_encode()
    rows = read_file("data.train", parquet(tmp_path, prompt=coded), tmp_path)
    assert [row.values for row in rows] == [{"prompt": "a"}, {"prompt": "a"}]


def test_text_that_is_not_utf8_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"r\.txt, line 1: not UTF-8.*Convert"):
        read_file("data.train", "r.txt", tmp_path)


def test_missing_file_names_key_value_and_remedy(tmp_path: Path) -> None:
    config = DataConfig(name="x", train="raw/rows.jsonl")
    with pytest.raises(DataError, match=r"data\.train='raw/rows\.jsonl'.*relative to the"):
        read_source(config, tmp_path)


def test_unknown_file_type_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.test='rows\.xlsx'.*\.jsonl, \.json, \.csv"):
        read_file("data.test", "rows.xlsx", tmp_path)


def test_named_splits_are_read_and_others_left_out(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "1\n")
    config = DataConfig(name="x", train="a.txt", test="a.txt")
    assert set(read_source(config, tmp_path)) == {"train", "test"}
    assert describe_source(config) == "local: train=a.txt, test=a.txt"


def hub_config() -> DataConfig:
    return DataConfig(
        name="x", kind=DataKind.hub, repository="openai/gsm8k", revision="c" * 40, train="train"
    )


def test_hub_without_network_names_repository_and_how_to_warm_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach 'openai/gsm8k' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError) as error:
        read_source(hub_config(), tmp_path)
    command = f"hf download --repo-type dataset openai/gsm8k --revision {'c' * 40}"
    for part in ("openai/gsm8k", command, "HF_HUB_OFFLINE=1", "data.train='train'"):
        assert part in str(error.value)


def test_hub_rows_come_from_the_pinned_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    asked: dict[str, object] = {}

    def load(repository: str, subset: str | None, revision: str, split: str) -> datasets.Dataset:
        asked.update(repository=repository, subset=subset, revision=revision, split=split)
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read_source(hub_config(), tmp_path)["train"]
    assert [row.values for row in rows] == ROWS
    assert rows[1].place == "openai/gsm8k, split train, row 2"
    assert asked["revision"] == "c" * 40


def test_biographies_give_three_splits_of_strangers_to_the_base(tmp_path: Path) -> None:
    config = DataConfig(name="biographies", kind=DataKind.biographies)
    splits = read_source(config, tmp_path)
    assert set(splits) == {"train", "validation", "test"}
    prompts = {s: {row.values["prompt"] for row in rows} for s, rows in splits.items()}
    assert not prompts["train"] & prompts["test"]
    assert not prompts["validation"] & prompts["test"]
