"""Secrets by reference: what the service is given, and what a shell may read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.keys import credentials
from agent.keys.credentials import read_secret
from agent.site.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.setattr(credentials, "FOLDER", tmp_path)
    (tmp_path / "flat-302").write_text("open sesame\n")
    return tmp_path


def test_a_shell_that_may_read_the_folder_needs_no_service(folder: Path) -> None:
    assert read_secret("credential:key_flat-302") == b"open sesame"


def test_what_the_service_was_given_goes_first(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "key_flat-302").write_text("from systemd")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    assert read_secret("credential:key_flat-302") == b"from systemd"


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("credential:flat-302", "credential:key_flat-302"),  # the name that the unit gives it is said
        ("credential:key_flat-9", "flat-9; write the secret into it, as root"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(folder: Path, reference: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_secret(reference)
    assert said in str(caught.value.errors)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give root up")
def test_who_may_not_read_it_is_told_the_one_command_that_works(folder: Path) -> None:
    (folder / "flat-302").chmod(0o600)
    folder.chmod(0o711)
    for parent in folder.parents:
        if parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.setuid(65534)
        try:
            read_secret("credential:key_flat-302")
            os.write(writer, b"read")
        except ConfigError as error:
            os.write(writer, str(error.errors).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read().decode()
    os.waitpid(child, 0)
    assert "sudo systemd-run" in answer
    assert "LoadCredential=key:" in answer
