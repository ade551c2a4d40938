"""Files of rows: tables, JSON lines and plain text. Errors name the line."""
