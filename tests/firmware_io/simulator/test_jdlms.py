"""jDLMS (OpenMUC, GPL; a process of its own) reads and sets the simulated meter, where Java and its jars are there.

CHECKMETER_JDLMS names the folder with jdlms-1.8.0.jar and what it needs (Maven: org.openmuc:jdlms:1.8.0).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_io.simulator.line.ports import LineThread, open_port

JARS = os.environ.get("CHECKMETER_JDLMS", "")
pytestmark = pytest.mark.skipif(
    not (shutil.which("java") and JARS and list(Path(JARS).glob("jdlms-*.jar"))),
    reason="no Java, or CHECKMETER_JDLMS names no folder with jdlms-1.8.0.jar",
)
CLIENT = Path(__file__).with_name("JdlmsClient.java")


@pytest.mark.parametrize(
    ("kind", "framing"),
    [("none", "hdlc"), ("none", "wrapper"), ("lls", "hdlc"), ("hls-gmac", "hdlc"), ("hls-gmac", "wrapper")],
)
def test_jdlms_reads_lists_blocks_sets_and_calls(kind, framing, make_bench, secured):
    plan = secured(kind)
    bench = make_bench(framing=framing, flats=1, meter=plan)
    thread = LineThread("line", bench.site.lines["line"], open_port("tcp://127.0.0.1:0", 0, "N"))
    thread.start()
    keys = [plan.get(name, b"").hex() or "-" for name in ("encryption_key", "authentication_key")]
    words = [thread.port.name.rsplit(":", 1)[1], framing, {"hls-gmac": "gmac"}.get(kind, kind)]
    words += [plan.get("password", b"-").decode(), *keys, str(plan.get("client", 16))]
    try:
        done = subprocess.run(
            ["java", "-cp", f"{JARS}/*", str(CLIENT), *words], capture_output=True, text=True, timeout=90, check=False
        )
    finally:
        thread.stop()
    assert done.returncode == 0, done.stderr[-1500:]
    energy, volts, objects, sets, action = done.stdout.splitlines()
    meter = bench.site.meters["flat-1"]
    assert int(energy) == round(meter.energy_wh(bench.clock.now())[0] / 10)  # its scaler is 1
    assert 2000 < int(volts) < 2600
    assert int(objects) > 25
    assert sets == "[SUCCESS, SUCCESS]"
    assert action == "SUCCESS"
    assert meter.period_s == 1800
