"""The list of what a release is made of, from `constraints.txt`: a CycloneDX SBOM, and a look for known weaknesses.

    python -m agent.deploy.sbom constraints.txt VERSION > sbom.json
    python -m agent.deploy.sbom --audit FOLDER constraints.txt     # FOLDER: advisories in OSV form (*.json)

It needs no network and no package beside the standard library.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Package:
    """One locked package; `sha256` of all its files."""

    name: str
    version: str
    sha256: tuple[str, ...]

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{normal(self.name)}@{self.version}"


def normal(name: str) -> str:
    """A package's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> list[Package]:
    """The packages of a constraints file with hashes. Raises ValueError for one without."""
    found: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        pin = _PIN.match(line)
        if pin is not None:
            found.append((pin[1], pin[2], []))
        if found:
            found[-1][2].extend(_HASH.findall(line))
    for name, version, hashes in found:
        if not hashes:
            raise ValueError(f"{name}=={version} has no hash: make lock")
    return [Package(name, version, tuple(sorted(hashes))) for name, version, hashes in found]


def sbom(packages: list[Package], version: str) -> dict[str, Any]:
    """A CycloneDX 1.5 bill of materials; the same input gives the same text."""
    serial = uuid.uuid5(uuid.NAMESPACE_URL, "".join(p.purl + "".join(p.sha256) for p in packages) + version)
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "checkmeter", "version": version}},
        "components": [
            {
                "type": "library",
                "name": p.name,
                "version": p.version,
                "purl": p.purl,
                "bom-ref": p.purl,
                "externalReferences": [
                    {
                        "type": "distribution",
                        "url": f"https://pypi.org/project/{normal(p.name)}/{p.version}/",
                        "hashes": [{"alg": "SHA-256", "content": digest} for digest in p.sha256],
                    }
                ],
            }
            for p in packages
        ],
    }


def known_weaknesses(packages: list[Package], advisories: Path) -> Iterator[str]:
    """One line for each advisory in OSV form under `advisories` that lists a locked version as affected."""
    by_name = {normal(p.name): p for p in packages}
    for file in sorted(advisories.rglob("*.json")):
        advisory = json.loads(file.read_text(encoding="utf-8"))
        for affected in advisory.get("affected", ()):
            about = affected.get("package", {})
            package = by_name.get(normal(about.get("name", "")))
            if package is None or about.get("ecosystem", "PyPI") != "PyPI":
                continue
            if package.version in affected.get("versions", ()):
                yield f"{package.name} {package.version}: {advisory.get('id')}: {advisory.get('summary', '')}"


def main(argv: list[str]) -> int:
    """As the module says; 1 if an advisory fits."""
    if len(argv) == 4 and argv[1] == "--audit":
        found = list(known_weaknesses(locked(Path(argv[3]).read_text(encoding="utf-8")), Path(argv[2])))
        print("\n".join(found) or "no advisory fits a locked package")
        return 1 if found else 0
    if len(argv) != 3:
        print("usage: sbom.py constraints.txt VERSION | --audit FOLDER constraints.txt", file=sys.stderr)
        return 2
    print(json.dumps(sbom(locked(Path(argv[1]).read_text(encoding="utf-8")), argv[2]), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
