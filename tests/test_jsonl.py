"""JSON-lines files: what cannot be read is told at once, and what is left alone is closed."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relisten.errors import InputError
from relisten.jsonl import dump_row, parse_row, read_parsed, read_rows


def test_rows_come_with_their_place_and_bad_ones_stop_nobody(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[2]\n{\n{"a": "\xff"}\n{"a": 3}')
    first, *bad, last = read_rows(path)
    assert first == (f"{path}:1", {"a": 1})
    assert last == (f"{path}:6", {"a": 3})
    assert [str(error).removeprefix(f"{path}:").partition(" ")[0] for error in bad] == ["3:", "4:", "5:"]
    doubled = list(read_parsed(path, lambda row, folder, where: (2 * row["a"], folder)))
    assert [doubled[0], doubled[-1]] == [(2, tmp_path), (6, tmp_path)]


@pytest.mark.parametrize("read", [read_rows, lambda path: read_parsed(path, lambda row, folder, where: row)])
def test_a_file_that_is_missing_is_told_before_a_row_is_asked_for(read: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.jsonl")  # type: ignore[operator]


@pytest.mark.parametrize("asked", [0, 1])
def test_a_file_that_is_not_read_to_its_end_is_closed(asked: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    rows = read_parsed(path, lambda row, folder, where: row)
    for _ in range(asked):
        next(rows)
    del rows
    gc.collect()  # a file that was left open would warn here, which fails a test


# With half characters such as "\ud83d"; as JSON reads them, which makes one of two halves that meet.
_TEXTS = st.text(st.characters(codec=None)).map(lambda text: json.loads(json.dumps(text)))


@given(st.dictionaries(_TEXTS, st.one_of(_TEXTS, st.integers(), st.booleans(), st.none())))
def test_a_row_comes_back_as_it_was(row: dict[str, object]) -> None:
    text = dump_row(row)
    assert text.count("\n") == text.endswith("\n")
    assert parse_row(text.encode(), "here") == ("here", json.loads(text)) == ("here", row)
