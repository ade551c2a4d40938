"""The version, in a module of its own, so that every room can read it without the front door."""

__version__ = "0.1.0"
