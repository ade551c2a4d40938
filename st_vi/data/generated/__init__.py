"""Rows that this project draws and writes by itself: scenes, pictures of text, minimal pairs."""
