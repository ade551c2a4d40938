"""Files of rows: tables, JSON lines and plain text, read by stock readers, with the line of whatever is wrong."""

from st_vi.files.read import read_rows

__all__ = ["read_rows"]
