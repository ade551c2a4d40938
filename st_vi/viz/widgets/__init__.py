"""Notebook explorers: ipywidgets around the figures of `st_vi.viz`."""
