"""Kernels that begin at once: forked from a process that has imported what notebooks import.

``python -m tests.notebooks.warm serve SOCKET`` imports and forks. ``python warm.py kernel SOCKET -f FILE`` is what
Jupyter starts as a kernel: it imports nothing, stands for the forked one, passes signals on, and ends with it.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

START = 120  # seconds that a busy machine may take to import


def serve(place: str) -> None:
    """Import, then fork a kernel for every connection."""
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # see tests/conftest.py
    import datasets  # noqa: F401
    import pandas  # noqa: F401
    import plotly.graph_objects  # noqa: F401
    from ipykernel import kernelapp

    import st_vi.recipes.examples.text_models
    import st_vi.viz.widgets.explorer  # noqa: F401

    gc.freeze()  # a kernel collects its own garbage, and not what was imported here
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place)
        server.listen()
        while True:
            client, _ = server.accept()
            if os.fork() == 0:
                server.close()
                become_kernel(client, kernelapp)
            client.close()


def become_kernel(client: socket.socket, kernelapp: object) -> None:
    """In the forked process: be the kernel that the client stands for, and end when the client is killed."""
    import threading

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    asked = json.loads(client.makefile().readline())
    client.sendall(f"{os.getpid()}\n".encode())
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.environ.pop("JPY_PARENT_PID", None)
    os.chdir(asked["folder"])
    sys.path[0] = asked["folder"]

    def watch() -> None:
        client.recv(1)  # returns when the other end is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    sys.argv = ["ipykernel_launcher", *asked["arguments"]]
    kernelapp.launch_new_instance()
    os._exit(0)


def stand_for_kernel(place: str, *arguments: str) -> None:
    """What Jupyter takes for the kernel."""
    with socket.socket(socket.AF_UNIX) as server:
        end = time.monotonic() + START
        while True:
            try:
                server.connect(place)
                break
            except (FileNotFoundError, ConnectionRefusedError):  # it still imports
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        server.sendall(json.dumps(asked).encode() + b"\n")
        process = int(server.makefile().readline())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: os.kill(process, number))
        while server.recv(1):
            pass


def kernel_spec(folder: Path, place: str) -> None:
    """Write the spec that makes these the kernels named "python3"; `folder` goes into ``JUPYTER_PATH``."""
    argv = [sys.executable, "-S", "-E", __file__, "kernel", place, "-f", "{connection_file}"]
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}), encoding="utf-8")


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "serve" else stand_for_kernel(*sys.argv[2:])
