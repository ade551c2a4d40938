"""A small viPolyQwen that reads and sees, taught by a text encoder: what a picture says has the vector of its text."""
