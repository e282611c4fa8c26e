"""Resident memory of the agent on 32-bit ARM: `memory.py [--meters 100] [--days 7]`, run on the host by `check.sh`.

The building is simulated on the host, at the host's speed; the agent alone runs emulated and reads it over TCP. What
qemu needs for itself is left out: it puts a 32-bit guest below 4 GiB and itself above, and only the pages below are
summed (`/proc/PID/smaps`).
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
ROOTS = Path(os.environ.get("CHECKMETER_ROOTS") or CACHE / "checkmeter" / "roots")
GUEST_BYTES = 1 << 32
MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ")
DEADLINE_S, STOP_S = 3600.0, 300.0
UNIT = ("OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1", "MALLOC_ARENA_MAX=2")  # as the unit sets them


def site_text(meters: int, days: int, port: int, folder: str) -> str:
    """A building of `meters` flats on TCP meters, with `days` of stored profiles."""
    names = ["main", *(f"flat-{k}" for k in range(1, meters))]
    text = '[site]\nsite = "memory"\ngateway = "gw"\n'
    text += f'[store]\npath = "{folder}/checkmeter.sqlite"\n[service]\nsocket = "{folder}/control.sock"\n'
    text += f'[[bus]]\nid = "b1"\nport = "tcp://127.0.0.1:{port}"\npoll_s = 60\n'
    for k, name in enumerate(names):
        text += f'[[meter]]\nid = "{name}"\nbus = "b1"\naddress = {16 + k}\naccuracy_class = 1.0\nresolution_wh = 10\n'
    subs = ", ".join(f'"{name}"' for name in names[1:])
    text += f'[[zone]]\nid = "building"\nmain = "main"\nsubs = [{subs}]\n'
    return text + f"[simulation]\nseed = 5\nhistory_days = {days}\npace = false\nturnaround_s = 0.0\n"


def guest_mb(pid: int) -> float:
    """Resident memory of the guest alone, MB."""
    total_kb = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := MAPPING.match(line):
            inside = int(found[1], 16) < GUEST_BYTES
        elif inside and line.startswith("Rss:"):
            total_kb += int(line.split()[1])
    return total_kb / 1024


def emulated(name: str) -> int | None:
    """The process that runs `checkmeter run` emulated, if it is there."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if name in words and "arm-binfmt" in words and "agent.cli.main" in words:
                return int(entry.name)
    return None


def main() -> int:
    """Print what is resident while the agent polls; exit code 1 if it never got there."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--meters", type=int, default=100)
    options.add_argument("--days", type=int, default=7)
    chosen = options.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    out = ROOTS / "armhf.out" / "memory"
    out.mkdir(parents=True, exist_ok=True)
    for old in out.iterdir():
        old.unlink()
    site = out / "site.toml"
    site.write_text(site_text(chosen.meters, chosen.days, port, "/out/memory"))
    command = [sys.executable, "-m", "agent.cli.main", "simulate", str(site)]
    building = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    agent = subprocess.Popen(
        [HERE / "inside.sh", "armhf", "env", *UNIT, "python", "-m", "agent.cli.main", "run", "/out/memory/site.toml"],
        stderr=(out / "agent.log").open("wb"),
    )
    peak_mb, polling_mb, end = 0.0, 0.0, time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < end and agent.poll() is None:
            time.sleep(2.0)
            pid = emulated("/out/memory/site.toml")
            if pid is None:
                continue
            now_mb = guest_mb(pid)
            peak_mb = max(peak_mb, now_mb)
            asked = subprocess.run(
                [sys.executable, "-m", "agent.cli.main", "status", "--socket", str(out / "control.sock")],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            if (cycles := re.search(r"up, (\d+) cycles", asked.stdout)) and int(cycles[1]) >= 2:
                polling_mb = now_mb
                break
    finally:
        if (pid := emulated("/out/memory/site.toml")) is not None:
            os.kill(pid, signal.SIGTERM)
        agent.wait(STOP_S)
        building.terminate()
        building.wait(30)
    print(f"{chosen.meters} meters, {chosen.days} days read: {polling_mb:.1f} MB polling, {peak_mb:.1f} MB at most")
    return 0 if polling_mb else 1


if __name__ == "__main__":
    sys.exit(main())
