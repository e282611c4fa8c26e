"""Files that are deleted, full disks, and files from the utility that mean harm: the agent starts, reads and tells."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.keys.signing import sign
from agent.wire.codec import encode
from agent.wire.downlink import DesiredConfig
from agent.wire.topics import Address

pytestmark = [pytest.mark.timeout(240)]
ADDRESS = Address("acme", "riverside-12", "gw-0012")
LIMIT_MB = 120.0

BOMBS: dict[str, Callable[[str], str]] = {
    "1500 nested arrays": lambda site: site + "[nonsense]\nx = " + "[" * 1500 + "]" * 1500 + "\n",
    "1500 nested tables": lambda site: site + "[nonsense]\nx = " + "{a=" * 1500 + "1" + "}" * 1500 + "\n",
    "an integer of 5001 digits": lambda site: site + "[nonsense]\nx = " + "1" * 5001 + "\n",
    "a dotted key of 40 kB": lambda site: site + "[nonsense]\n" + "a." * 20_000 + "a = 1\n",
    "a dotted key of quoted parts": lambda site: site + "[nonsense]\n" + '"a" . ' * 5000 + "a = 1\n",
    "10,000 wrong meters": lambda site: site + '[[meter]]\nid = "x"\nadress = 3\n' * 3000,
    "10,000 names that nobody has": lambda site: site.replace(
        'subs = ["flat-1"', 'subs = ["flat-1"' + "".join(f', "none-{n}"' for n in range(10_000))
    ),
    "escapes that fool a lexer": lambda site: site + '[nonsense]\nx = """\\"""' + "[" * 1500 + "\n",
}


def stored(house: Any, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{house.store}?mode=ro", uri=True) as db:
        return db.execute(query).fetchall()


def test_a_store_that_is_deleted_while_the_agent_runs_is_noticed_and_written_again(house: Any) -> None:
    house.build('url = "mqtt://127.0.0.1:1"')  # nobody there: all that is committed waits
    house.start()
    house.until(lambda: house.state() == "online", 60.0, "online")
    house.until(lambda: stored(house, "SELECT 1 FROM outbox"), 100.0, "something waits")
    before = set(stored(house, "SELECT key FROM outbox")) | set(stored(house, "SELECT time_s FROM history"))
    for name in house.folder.glob("store.sqlite*"):
        name.unlink()
    house.until(house.store.exists, 15.0, "the file is there again")
    house.until(
        lambda: any(alert.bus == "store" for alert in house.snapshot().alerts), 30.0, "an alert that it was deleted"
    )
    house.until(lambda: stored(house, "SELECT 1 FROM event WHERE suffix = 'event/alert'"), 10.0, "it is committed")
    house.kill()
    after = set(stored(house, "SELECT key FROM outbox")) | set(stored(house, "SELECT time_s FROM history"))
    assert before <= after
    house.start()
    house.until(house.read, 60.0, "read again")
    house.stop()
    assert before <= set(stored(house, "SELECT key FROM outbox")) | set(stored(house, "SELECT time_s FROM history"))


@pytest.mark.mosquitto
@pytest.mark.timeout(600)
def test_desired_files_that_mean_harm_are_refused_and_the_agent_stays_small(house: Any, stage: Any) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    house.build(f'url = "mqtt://127.0.0.1:{broker.port}"')
    house.start()
    reported = listener.topics["config/reported"]
    house.until(lambda: reported and house.read(), 60.0, "ready")
    largest_mb = 0.0
    for version, name in enumerate(BOMBS, start=1):
        toml = BOMBS[name](house.site_file.read_text())
        wish = DesiredConfig(target=ADDRESS.target, version=version, issued=datetime.now(UTC), toml=toml)
        listener.publish("config/desired", encode(sign(house.key, "config", encode(wish))), retain=True)
        # The test's own limit ends a wait that never ends: how long an answer takes is the machine's business.
        while not any(json.loads(body).get("desired") == version for body in reported):
            assert house.alive(), f"{name}\n{house.log()[-2000:]}"
            largest_mb = max(largest_mb, house.memory_mb())
            time.sleep(0.05)
        said = json.loads(reported[-1])
        assert (said["state"], said["desired"]) == ("rejected", version), name
        assert said["reason"], name
    assert largest_mb <= LIMIT_MB
    house.stop()
    house.start()  # the last one is retained: it comes again
    house.until(house.read, 60.0, "it starts")
    house.stop()
    assert "Traceback" not in house.log()
    assert not list(house.folder.glob("desired/.check-*"))


@pytest.mark.parametrize("name", BOMBS)
def test_a_local_site_file_that_means_harm_gets_a_message(house: Any, name: str) -> None:
    house.site_file.write_text(BOMBS[name](house.site()))
    for verb in ("check", "run"):
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli.main", verb, house.site_file], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 78, done.stderr[-500:]
        assert "Traceback" not in done.stderr
        assert str(house.site_file) in done.stderr
        assert len(done.stderr.splitlines()) <= 120


@pytest.fixture
def full_disk(house: Any, root_only: None) -> Any:
    """A disk of its own under the store, and a function that fills it to the last octet."""
    disk: Path = house.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    house.store = disk / "store.sqlite"

    def fill() -> None:
        with (disk / "hog").open("wb", buffering=0) as hog:
            try:
                while True:
                    hog.write(b"x" * 4096)
            except OSError:
                pass

    yield fill
    house.close()
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.mosquitto
def test_a_full_disk_with_a_file_on_trial_does_not_keep_the_meters_from_being_read(
    house: Any, stage: Any, full_disk: Callable[[], None]
) -> None:
    broker = stage.broker()
    listener = stage.listener(broker.port)
    house.build(f'url = "mqtt://127.0.0.1:{broker.port}"')
    house.start()
    reported = listener.topics["config/reported"]
    house.until(lambda: reported and house.read(), 60.0, "ready")
    toml = house.site_file.read_text().replace("poll_s = 2.0", "poll_s = 3.0")
    wish = DesiredConfig(target=ADDRESS.target, version=1, issued=datetime.now(UTC), toml=toml)
    listener.publish("config/desired", encode(sign(house.key, "config", encode(wish))), retain=True)
    house.until(lambda: json.loads(reported[-1])["state"] == "on_trial", 60.0, "on trial")
    house.kill()
    full_disk()
    (house.folder / "disk" / "store.sqlite.ballast").unlink(missing_ok=True)
    full_disk()
    for _ in range(2):
        house.start()
        house.until(lambda: house.read(2), 60.0, "read, on a full disk, twice")
        house.kill()
    (house.folder / "disk" / "hog").unlink()
    house.start()
    house.until(lambda: house.read(2), 60.0, "read when there is room again")
    house.stop()


def ciphered(house: Any) -> str:
    """What a meter's table needs for HLS with GMAC; the keys lie beside the site file."""
    for name, text in (("ak", "D0D1D2D3D4D5D6D7D8D9DADBDCDDDEDF"), ("ek", "00" * 16)):
        (house.folder / name).write_text(text)
        (house.folder / name).chmod(0o600)
    return (
        f'client = 1\nsecurity = "hls-gmac"\nauthentication_key = "{house.folder}/ak"\n'
        f'encryption_key = "{house.folder}/ek"\nsystem_title = "43484B0000000001"\n'
    )


def test_ciphered_meters_are_read_after_a_restart_on_a_full_disk(house: Any, full_disk: Callable[[], None]) -> None:
    house.build(meter=ciphered(house))
    for _ in range(2):
        house.start()
        house.until(house.read, 60.0, "read")
        house.kill()
        full_disk()


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 100], ids=["empty", "torn", "zeros"])
def test_a_damaged_file_of_counters_is_made_good_by_the_meters(house: Any, content: bytes) -> None:
    house.build(meter=ciphered(house))
    house.start()
    house.until(house.read, 60.0, "read")
    house.kill()
    (house.folder / "counters.json").write_bytes(content)
    house.start()
    house.until(house.read, 60.0, "read again")
    house.stop()
    assert "each meter is asked for its counter" in house.log()
