"""Rows made by this project's own generators: scenes, pictures of text, minimal pairs."""
