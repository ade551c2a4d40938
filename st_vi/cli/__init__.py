"""The commands of ``python -m st_vi``, a file each. Heavy imports are inside them, so that --help is fast."""
