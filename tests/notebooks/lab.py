"""A JupyterLab server for tests: on localhost, with its own settings, and no pop-ups."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},  # they cover the page
    "notebook-extension/tracker": {"windowingMode": "none"},  # every cell is in the page, on screen or not
}


@dataclass(frozen=True)
class Lab:
    """A running server.

    Attributes:
        url: Without a slash at its end.
        token: For the server's API and its pages.
        root: Notebooks in this folder can be opened.
    """

    url: str
    token: str
    root: Path

    def ask(self, path: str, method: str = "GET") -> bytes:
        """The answer of the server's API."""
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def connection_file(self, kernel: str) -> Path:
        """Where a client finds how to speak to this kernel."""
        return self.root.parent / "runtime" / f"kernel-{kernel}.json"

    def tidy(self) -> None:
        """As it was before a notebook was opened: no kernel holds memory, and the theme is the light one."""
        for kernel in json.loads(self.ask("kernels")):
            self.ask(f"kernels/{kernel['id']}", "DELETE")
        theme = self.root.parent / "settings/@jupyterlab/apputils-extension/themes.jupyterlab-settings"
        theme.unlink(missing_ok=True)


@contextmanager
def running_lab(folder: Path, environment: Mapping[str, str]) -> Iterator[Lab]:
    """JupyterLab in a process of its own, until the block is left.

    Args:
        folder: Empty; for notebooks, settings and the log.
        environment: What server and kernels find besides the environment of this process.
    """
    for name, values in SETTINGS.items():
        plugin = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        plugin.parent.mkdir(parents=True)
        plugin.write_text(json.dumps(values), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}", secrets.token_hex(16), folder / "root")
    lab.root.mkdir()
    own = {"CONFIG_DIR": "config", "DATA_DIR": "data", "RUNTIME_DIR": "runtime"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
                *(f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={lab.root}"),
                *(f"--IdentityProvider.token={lab.token}", "--LabApp.extension_manager=readonly"),
                *("--LabApp.expose_app_in_browser=True",),  # tests give commands to it by name
            ],
            env={
                **os.environ,
                **environment,
                **{f"JUPYTER_{name}": str(folder / value) for name, value in own.items()},
                "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
                "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
            },
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        _wait_for(lab, process, folder / "log")
        yield lab
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(20)


def _wait_for(lab: Lab, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        try:
            lab.ask("status")
            return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
