"""`checkmeter demo --utility`: it ends with the page of the theft that was found, while everything still runs."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra `web` is not installed")
ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.mosquitto
@pytest.mark.xdist_group("e2e")
@pytest.mark.timeout(960)
def test_the_demo_ends_on_the_page_of_the_theft(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agent.cli.main", "demo", str(ROOT / "examples/demo-building.toml"), "--utility",
               "--lead-days", "0.3", "--serve-seconds", "8",
               "--keep", str(tmp_path / "demo")]  # fmt: skip
    said = ""
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            said += line
            if found := re.search(r"page: (http://127\.0\.0\.1:\d+(/case/acme/riverside-12/gw-0012/\S+))", line):
                with urllib.request.urlopen(found[1], timeout=10) as answer:
                    page = answer.read().decode()
                assert "flat-302" in page
                assert "A meter is probably bypassed" in page or "A meter shows too little" in page
                break
        else:
            pytest.fail(said[-3000:])
        assert demo.wait(60) == 0, said + demo.stdout.read()
    finally:
        demo.kill()
        demo.stdout.close()
    assert "Traceback" not in (tmp_path / "demo/ingest.log").read_text()
