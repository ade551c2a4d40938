"""Demos and small offline models for trying, testing and inspection."""
