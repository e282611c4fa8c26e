"""The shim under one process's disk: builds it, and speaks to it from within (`Disk`) or starts programs over it."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


def build(folder: Path) -> Path | None:
    """Compile the shim; None where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = folder / "disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def start(library: Path, module: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program over the shim, to its end."""
    shim = {"LD_PRELOAD": str(library), "CHECKMETER_DISK": str(library)}
    environment = {**os.environ, **shim, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(module), *arguments], env=environment, capture_output=True, text=True, check=False
    )


class Disk:
    """The shim of this process, which must have been started over it. Files that begin with `folder`/ are watched."""

    def __init__(self, folder: Path) -> None:
        self._shim = ctypes.CDLL(os.environ["CHECKMETER_DISK"])
        self._shim.disk_operations.restype = self._shim.disk_failed.restype = ctypes.c_long
        self.watch(folder)

    def watch(self, folder: Path) -> None:
        """Watch the files of another folder; what was kept for a power cut is forgotten."""
        self._shim.disk_watch(f"{folder}/".encode())

    def fail(self, after: int, count: int, error: int) -> None:
        """After `after` more operations, fail `count` with an errno."""
        self._shim.disk_fail(ctypes.c_long(after), ctypes.c_long(count), error)

    def heal(self) -> None:
        """Fail no more."""
        self._shim.disk_fail(ctypes.c_long(-1), ctypes.c_long(0), 0)

    @property
    def operations(self) -> int:
        """Writes, syncs and truncations so far."""
        return int(self._shim.disk_operations())

    @property
    def failed(self) -> int:
        """Operations that failed so far."""
        return int(self._shim.disk_failed())

    def power_cut(self, seed: int, copy: Path) -> None:
        """Make `copy`, a copy of the watched folder, what a power cut would have left of it."""
        self._shim.disk_power_cut(seed & 0xFFFFFFFF, f"{copy}/".encode())
