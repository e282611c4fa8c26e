"""`checkmeter doctor`: one page for a support call, without secrets and without changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.gateway import doctor
from agent.process.exit_codes import UNAVAILABLE

SITE = """\
[site]
site = "s"
gateway = "g"
[[bus]]
id = "b"
port = "/dev/none-such"
[[meter]]
id = "main"
bus = "b"
address = 16
[[meter]]
id = "flat-1"
bus = "b"
address = 17
security = "lls"
password = "./secret"
[[meter]]
id = "flat-2"
bus = "b"
address = 18
[[zone]]
id = "z"
main = "main"
subs = ["flat-1"]
"""


def test_it_looks_at_everything_and_says_what_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site.toml").write_text(SITE)
    (tmp_path / "secret").write_text("open sesame")
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "flat-1").write_text("open sesame")
    (folder / "flat-1").chmod(0o644)
    monkeypatch.setattr(doctor, "FOLDER", folder)
    done = CliRunner().invoke(doctor.command, [str(tmp_path / "site.toml")])
    assert done.exit_code == UNAVAILABLE
    for said in ("checkmeter 0.", "Python 3.", "in no zone", "others may read flat-1: chmod 600", "/dev/none-such"):
        assert said in done.output, (said, done.output)
    assert "sesame" not in done.output


def test_a_wrong_site_file_is_one_of_its_findings(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text(SITE.replace('id = "b"', 'id = "b"\nbuad = 9600', 1))
    done = CliRunner().invoke(doctor.command, [str(tmp_path / "site.toml"), "--no-online"])
    assert done.exit_code == UNAVAILABLE
    assert 'did you mean "baud"' in done.output
    assert "Traceback" not in done.output
