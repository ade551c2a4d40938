"""Helpers of the command line; the commands are in `st_vi.__main__`."""
