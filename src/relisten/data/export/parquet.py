"""Parquet files written row group by row group, so that memory does not grow with the set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from relisten.data.export.base import MissingLibraryError
from relisten.errors import InputError

if TYPE_CHECKING:
    import pyarrow

_GROUP_ROWS: Final = 1000
_GROUP_BYTES: Final = 32 << 20


def need_pyarrow() -> Any:
    """The library.

    Raises:
        MissingLibraryError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise MissingLibraryError('parquet needs pyarrow: pip install "relisten[export]"') from None
    return pyarrow


class ParquetFile:
    """One parquet file; rows are objects of the schema's columns."""

    def __init__(self, path: Path, schema: pyarrow.Schema) -> None:
        self._pyarrow = need_pyarrow()
        self.path = path
        self.bytes = 0
        self._part = path.with_name(f".{path.name}.part")
        self._schema = schema
        self._rows: list[pyarrow.RecordBatch] = []
        self._pending = 0
        self._finished = False
        self._writer = self._pyarrow.parquet.ParquetWriter(self._part, schema)

    def add(self, row: Mapping[str, Any], size: int, id: str) -> None:
        """Take a row of about `size` bytes, that of example `id`.

        Raises:
            InputError: a value is not of its column's type, or text that UTF-8 cannot hold; the row is not taken.
        """
        try:
            batch = self._pyarrow.RecordBatch.from_pylist([row], schema=self._schema)
        except (TypeError, ValueError) as error:
            raise InputError(f"example {id!r}: cannot be written as parquet ({error}); mend that row") from None
        self._rows.append(batch)
        self._pending += size
        self.bytes += size
        if len(self._rows) >= _GROUP_ROWS or self._pending >= _GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        """Write what is pending and the footer; the file keeps its provisional name."""
        if not self._finished:
            self._flush()
            self._writer.close()
            self._finished = True

    def close(self, path: Path | None = None) -> None:
        """Give the finished file its name, or another one."""
        self._part.replace(path or self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._rows = []
        self._writer.close()
        self._part.unlink(missing_ok=True)

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(self._pyarrow.Table.from_batches(self._rows))
        self._rows = []
        self._pending = 0
