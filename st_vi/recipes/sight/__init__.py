"""A small viPolyQwen that reads and sees, taught by a text encoder: what an image says has the vector of its text."""
