"""What the command line needs beside its commands; these are in `st_vi.__main__`, which alone prints."""
