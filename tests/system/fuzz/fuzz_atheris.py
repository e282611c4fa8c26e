"""The same targets driven by coverage (the extra `fuzz`).

python tests/system/fuzz/fuzz_atheris.py framer -runs=1000000
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
with atheris.instrument_imports(include=["firmware_io"]):
    import fuzz


def main() -> None:
    """The first argument is the target, the others are libFuzzer's."""
    if len(sys.argv) < 2 or sys.argv[1] not in fuzz.TARGETS:
        raise SystemExit(f"which target? {', '.join(sorted(fuzz.TARGETS))}")
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(fuzz.SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], lambda octets: fuzz.tried(name, octets))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
