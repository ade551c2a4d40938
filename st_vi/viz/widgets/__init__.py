"""Live explorers for notebooks: thin layers of ipywidgets over the figures of `st_vi.viz`."""
