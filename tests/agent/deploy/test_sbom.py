"""The lock, the bill of materials and the look for advisories."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from agent.deploy.sbom import known_weaknesses, locked, main, normal, sbom

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "constraints.txt").read_text()


def test_every_package_of_the_run_time_is_locked_with_hashes() -> None:
    names = {normal(package.name) for package in locked(LOCK)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {normal(re.split(r"[<>=;\s\[]", line)[0]) for line in project["dependencies"]}
    assert wanted <= names
    with pytest.raises(ValueError, match="no hash"):
        locked("click==8.1\n")


def test_the_bill_of_materials_names_them_all_and_is_reproducible() -> None:
    packages = locked(LOCK)
    bill = sbom(packages, "1.0")
    assert bill == sbom(packages, "1.0")
    assert bill["bomFormat"] == "CycloneDX"
    assert len({component["purl"] for component in bill["components"]}) == len(packages)
    assert bill["serialNumber"] != sbom(packages[1:], "1.0")["serialNumber"]


def test_an_advisory_for_a_locked_version_is_found(tmp_path: Path) -> None:
    package = locked(LOCK)[0]
    affected = {"package": {"name": package.name.upper(), "ecosystem": "PyPI"}, "versions": [package.version]}
    advisory = tmp_path / "one.json"
    advisory.write_text(json.dumps({"id": "OSV-1", "summary": "bad", "affected": [affected]}))
    assert list(known_weaknesses([package], tmp_path)) == [f"{package.name} {package.version}: OSV-1: bad"]
    lock = tmp_path / "constraints.txt"
    lock.write_text(LOCK)
    assert main(["sbom.py", "--audit", str(tmp_path), str(lock)]) == 1
    affected["versions"] = ["0.0.0"]
    advisory.write_text(json.dumps({"id": "OSV-1", "affected": [affected]}))
    assert main(["sbom.py", "--audit", str(tmp_path), str(lock)]) == 0
