"""Signed release archives: what was signed is installed, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.gateway.keys import command


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    run = CliRunner().invoke
    for name in ("release", "other"):
        assert run(command, ["make", str(tmp_path / name)]).exit_code == 0
    archive = tmp_path / "checkmeter_1.0_arm64.deb"
    archive.write_bytes(b"archive" * 1000)
    made = run(command, ["sign-file", "--key", str(tmp_path / "release.key"), str(archive)])
    assert made.exit_code == 0, made.output
    return archive


def verified(archive: Path, key: str = "release.pub") -> int:
    return CliRunner().invoke(command, ["verify-file", "--key", str(archive.parent / key), str(archive)]).exit_code


def test_what_was_signed_passes(signed: Path) -> None:
    assert verified(signed) == 0
    assert verified(signed, "other.pub") == 1


def test_a_changed_renamed_or_unsigned_archive_does_not(signed: Path) -> None:
    content, signature = signed.read_bytes(), signed.with_name(signed.name + ".sig")
    signed.write_bytes(content + b"x")
    assert verified(signed) == 1
    older = signed.with_name("checkmeter_2.0_arm64.deb")  # an old archive, passed off as a new one
    older.write_bytes(content)
    older.with_name(older.name + ".sig").write_bytes(signature.read_bytes())
    assert verified(older) == 1
    signature.write_bytes(b"nonsense")
    signed.write_bytes(content)
    assert verified(signed) == 1
    signature.unlink()
    assert verified(signed) == 1
