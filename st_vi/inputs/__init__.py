"""Inputs before any model sees them: telling texts from images, opening images, equality by content."""
