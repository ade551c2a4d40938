"""Files of rows: tables, JSON lines and plain text. Errors name the line."""

from st_vi.files.read import read_rows

__all__ = ["read_rows"]
