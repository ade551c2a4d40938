"""One process works in a folder at a time, and what a killed one left is removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from st_vi.files.cache import cache_folder
from st_vi.files.folders import alone_in, unfinished

pytest.importorskip("fcntl")
AT_WORK = """
import sys
from pathlib import Path
from st_vi.files.folders import alone_in, unfinished
with {block} as folder:
    Path(folder or sys.argv[1], "file").write_text("half")
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def at_work():
    """Starts a process that works in a folder until it is killed."""
    started = []

    def start(block, folder):
        command = [sys.executable, "-c", AT_WORK.format(block=block), str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout.readline() == b"there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_folder_is_free_again_when_its_process_was_killed(at_work, tmp_path):
    process = at_work("alone_in(sys.argv[1])", tmp_path)
    with pytest.raises(ValueError, match="another run is at work in"), alone_in(tmp_path):
        pass
    process.kill()
    process.wait()
    with alone_in(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_new_folder_stays_only_with_files(tmp_path):
    with alone_in(tmp_path / "empty"):
        assert (tmp_path / "empty").is_dir()
    with alone_in(tmp_path / "used"):
        (tmp_path / "used" / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_what_killed_processes_left_is_removed_and_what_others_work_on_is_not(at_work, tmp_path):
    killed = at_work("unfinished(Path(sys.argv[1]))", tmp_path / "model")
    killed.kill()
    killed.wait()
    (left,) = tmp_path.iterdir()
    at_work("unfinished(Path(sys.argv[1]))", tmp_path / "model")
    (other,) = tmp_path.iterdir()  # the second process has removed what the first left
    assert other != left
    with unfinished(tmp_path / "model") as folder:
        assert (other / "file").read_text() == "half"
        (folder / "file").write_text("whole")
        folder.rename(tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {other.name, "model"}


def test_a_folder_that_is_just_made_is_not_removed(tmp_path):
    """Its process has not locked it yet."""
    (tmp_path / ".unfinished-1").mkdir()
    with unfinished(tmp_path / "model"):
        assert (tmp_path / ".unfinished-1").is_dir()


def test_a_process_forked_meanwhile_keeps_no_folder(tmp_path):
    """As a worker that outlives the block: it has every file that was open."""
    with alone_in(tmp_path):
        ready, end = os.pipe()
        if (child := os.fork()) == 0:
            os.close(end)
            os.read(ready, 1)  # until the parent closes its end
            os._exit(0)
    with alone_in(tmp_path):
        pass
    os.close(end)
    os.waitpid(child, 0)


def test_the_cache_may_be_below_the_home(monkeypatch):
    monkeypatch.setenv("ST_VI_CACHE", "~/vectors")
    assert cache_folder("onnx") == Path.home() / "vectors" / "onnx"
