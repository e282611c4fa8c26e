"""The unit under a real systemd: a container boots this machine's own system with the Debian package laid over it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.deploy.deb import DIST_PACKAGES, FROM_DEBIAN

FLATS = [f"flat-{k}" for k in range(1, 5)]
NEEDED = ("systemd-nspawn", "dpkg-deb", "mount")
BOOT_TIMEOUT_S = 300
STAMP = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)

SITE = (
    '[site]\nsite = "boot"\ngateway = "gw"\n'
    '[[bus]]\nid = "b1"\nport = "tcp://127.0.0.1:4059"\npoll_s = 2\n'
    + "".join(
        f'[[meter]]\nid = "{name}"\nbus = "b1"\naddress = {16 + k}\naccuracy_class = 1.0\nresolution_wh = 1\n'
        for k, name in enumerate(["main", *FLATS])
    )
    + f'[[zone]]\nid = "building"\nmain = "main"\nsubs = {json.dumps(FLATS)}\n'
    "[simulation]\nseed = 5\nhistory_days = 2\n"
)

METERS = """[Unit]
Before=checkmeter.service
[Service]
ExecStart=/usr/bin/checkmeter simulate /etc/checkmeter/meters.toml
"""

DRIVER = """[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /etc/checkmeter/driver.sh
StandardOutput=file:/result/out
StandardError=file:/result/err
"""

# Each step writes NAME=VALUE; the test judges them. Every wait is bounded.
DRIVER_SH = r"""
pid() { systemctl show -p MainPID --value checkmeter; }
restarts() { systemctl show -p NRestarts --value checkmeter; }
until_true() { for _ in $(seq 1 "$1"); do eval "$2" && return 0; sleep 0.5; done; return 1; }
active() { [ "$(systemctl is-active checkmeter)" = active ]; }

rm -f /usr/sbin/policy-rc.d  # of a machine that is itself a container: it would forbid packages to restart anything
until_true 240 active; echo first_active=$(systemctl is-active checkmeter)
echo user=$(ps -o user= -p "$(pid)")
echo threads=$(ls /proc/$(pid)/task | wc -l)
until_true 60 'checkmeter status >/dev/null 2>&1'; checkmeter status >/dev/null; echo status_exit=$?
echo credential=$(ls /run/credentials/checkmeter.service 2>/dev/null | tr '\n' ' ')
echo state_owner=$(stat -c %U:%a /var/lib/checkmeter)

kill -9 "$(pid)"; until_true 60 '[ "$(restarts)" = 1 ] && active'
echo after_kill=$(restarts):$(systemctl is-active checkmeter)
kill -STOP "$(pid)"; until_true 80 '[ "$(restarts)" = 2 ] && active'
echo after_hang=$(restarts):$(systemctl is-active checkmeter)

began=$(date +%s%N); systemctl stop checkmeter; ended=$(date +%s%N)
echo stop_ms=$(( (ended - began) / 1000000 ))
echo stop_result=$(systemctl show -p Result --value checkmeter)

sed -i '1i nonsense = 1' /etc/checkmeter/site.toml
systemctl start checkmeter; sleep 8
echo bad_site=$(systemctl is-active checkmeter):$(systemctl show -p ExecMainStatus --value checkmeter)
journalctl -u checkmeter -o cat --no-pager | grep -m1 nonsense | sed 's/^/bad_site_said=/'

# What a gateway has learned outlives an upgrade, and no older release gets at it.
sed -i 1d /etc/checkmeter/site.toml
dpkg -i /packages/older.deb >/dev/null; echo older_installed=$(dpkg-query -W -f '${db:Status-Status}' checkmeter)
systemctl reset-failed checkmeter; systemctl restart checkmeter; until_true 60 active
touch /var/lib/checkmeter/marker; before=$(pid)
dpkg -i /packages/newer.deb >/dev/null; echo upgraded=$?:$(systemctl is-active checkmeter)
[ "$(pid)" != "$before" ] && echo restarted=yes
echo kept=$(ls /var/lib/checkmeter/marker):$(stat -c %U /var/lib/checkmeter)
echo compiled=$(ls /usr/lib/checkmeter/lib/python3*/site-packages/agent/cli/__pycache__ | grep -c main)
now=$(dpkg-query -W -f '${Version}' checkmeter)
dpkg -i /packages/older.deb >/dev/null 2>/tmp/refused; echo downgraded=$?
grep -m1 'is older than' /tmp/refused | sed 's/^/downgrade_said=/'
echo still=$([ "$(dpkg-query -W -f '${Version}' checkmeter)" = "$now" ] && checkmeter --version | cut -d, -f1)
dpkg -r checkmeter >/dev/null
echo removed=$(ls /var/lib/checkmeter/marker):$(ls -d /usr/lib/checkmeter 2>/dev/null | wc -l)
dpkg -P checkmeter >/dev/null
echo purged=$(ls -d /etc/checkmeter /var/lib/checkmeter /usr/lib/checkmeter 2>/dev/null | wc -l)
echo finished=yes
systemctl poweroff
"""


def _may_boot() -> str | None:
    """Why no container can be booted here, or None."""
    if os.geteuid() != 0:
        return "booting a container needs root"
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not on the PATH (Debian: systemd-container)"
    if not Path("/sbin/init").exists() or not Path("/usr/bin/python3.11").exists():
        return "this machine has no systemd or no Debian python3.11 to boot"
    if not all((DIST_PACKAGES / linked).exists() for _, linked in FROM_DEBIAN.values()):
        return "what the package takes from Debian is not here (python3-numpy, python3-cffi-backend)"
    return None


@pytest.fixture
def machine(tmp_path: Path, debian_package: Path) -> Iterator[Path]:
    """The root of a system: this machine's own, read-only below, the package and the test's files above."""
    upper, root = tmp_path / "upper", tmp_path / "root"
    upper.mkdir()
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", upper], check=True, timeout=30)
    try:
        (upper / "up").mkdir()
        (upper / "work").mkdir()
        options = f"lowerdir=/,upperdir={upper / 'up'},workdir={upper / 'work'}"
        mounted = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, root], check=False, timeout=30)
        if mounted.returncode:
            pytest.skip("this kernel mounts no overlay over the root file system")
        try:
            subprocess.run(["dpkg-deb", "-x", debian_package, root], check=True, timeout=60)
            # As the package's postinst does; uncompiled, a start takes a busy machine longer than systemd waits.
            subprocess.run(["chroot", root, "py3compile", "/usr/lib/checkmeter"], check=True, timeout=300)
            _furnish(root)
            yield root
        finally:
            subprocess.run(["umount", root], check=True, timeout=30)
    finally:
        subprocess.run(["umount", upper], check=True, timeout=30)


@pytest.fixture
def packages(tmp_path: Path, debian_package: Path) -> Path:
    """A folder with `newer.deb`, this tree's package, and `older.deb`, the same under an older number."""
    folder, unpacked = tmp_path / "packages", tmp_path / "unpacked"
    folder.mkdir()
    shutil.copy(debian_package, folder / "newer.deb")
    subprocess.run(["dpkg-deb", "-R", debian_package, unpacked], check=True, timeout=60)
    version = subprocess.run(
        ["dpkg-deb", "-f", debian_package, "Version"], check=True, timeout=60, capture_output=True, text=True
    ).stdout.strip()
    for file in ("control", "preinst"):
        path = unpacked / "DEBIAN" / file
        path.write_text(path.read_text().replace(version, f"0.0~{version}"))
    subprocess.run(
        ["dpkg-deb", "-Znone", "-b", unpacked, folder / "older.deb"], check=True, timeout=60, stdout=subprocess.DEVNULL
    )
    return folder


def _furnish(root: Path) -> None:
    etc, units = root / "etc/checkmeter", root / "etc/systemd/system"
    (etc / "credentials").mkdir(parents=True)
    (etc / "site.toml").write_text(SITE)
    (etc / "meters.toml").write_text(SITE)
    (etc / "credentials/flat-1").write_text("secret")
    (etc / "driver.sh").write_text(DRIVER_SH)
    (units / "meters.service").write_text(METERS)
    (units / "driver.service").write_text(DRIVER)
    wants = units / "multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    for unit in ("meters.service", "driver.service"):
        (wants / unit).symlink_to(f"/etc/systemd/system/{unit}")
    (wants / "checkmeter.service").symlink_to("/usr/lib/systemd/system/checkmeter.service")
    override = units / "checkmeter.service.d"
    override.mkdir()
    (override / "test.conf").write_text("[Service]\nWatchdogSec=8\nRestartSec=1\n")
    for other in ("mariadb", "mosquitto", "systemd-networkd-wait-online", "NetworkManager-wait-online", "ssh"):
        mask = units / f"{other}.service"
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")


@pytest.mark.xdist_group("deb")
@pytest.mark.timeout(1500)
@pytest.mark.skipif(_may_boot() is not None, reason=str(_may_boot()))
def test_the_unit_starts_restarts_stops_refuses_and_is_upgraded_under_a_real_systemd(
    machine: Path, packages: Path, tmp_path: Path
) -> None:
    result = tmp_path / "result"
    result.mkdir()
    words = [
        "systemd-nspawn",
        "--boot",
        "--quiet",
        "--register=no",
        "--keep-unit",
        "--private-network",
        "--machine=checkmeter-boot-test",
        f"--directory={machine}",
        f"--bind={result}:/result",
        f"--bind-ro={packages}:/packages",
    ]
    try:
        booted = subprocess.run(
            words, capture_output=True, text=True, timeout=BOOT_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL
        )
        console = booted.stdout
    except subprocess.TimeoutExpired as expired:
        console = (expired.stdout or b"").decode(errors="replace")
    if not (result / "out").exists() and "Welcome to" not in console and "Startup finished" not in console:
        pytest.skip(f"no container boots on this machine: {console[-300:]}")
    said = (result / "out").read_text() if (result / "out").exists() else ""
    found = dict(STAMP.findall(said))
    assert found.get("finished") == "yes", f"{said}\n{console[-1500:]}"
    assert found["first_active"] == "active"
    assert found["user"] == "checkme+" or found["user"] == "checkmeter"
    assert found["status_exit"] == "0"
    assert found["state_owner"] == "checkmeter:750"
    assert found["after_kill"] == "1:active"
    assert found["after_hang"] == "2:active"
    assert found["stop_result"] == "success"
    assert int(found["stop_ms"]) < 10_000
    assert found["bad_site"] == "failed:78"
    assert "site.toml" in found["bad_site_said"]
    assert found["older_installed"] == "installed"
    assert found["upgraded"] == "0:active"
    assert found["restarted"] == "yes"
    assert found["kept"] == "/var/lib/checkmeter/marker:checkmeter"
    assert found["compiled"] == "1"
    assert found["downgraded"] == "1"
    assert "older than" in found["downgrade_said"]
    assert found["still"].startswith("checkmeter")
    assert found["removed"] == "/var/lib/checkmeter/marker:0"
    assert found["purged"] == "0"
