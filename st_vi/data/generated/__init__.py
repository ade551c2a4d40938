"""Rows made by this project's own generators: scenes, images of text, minimal pairs."""
