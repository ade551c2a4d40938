"""What an input is, before any model sees it: text or picture, opened in one way, equal by content."""
