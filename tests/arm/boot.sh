#!/usr/bin/env bash
# Installs the package of an architecture in a gateway's root and boots it: `boot.sh ARCHITECTURE`.
#
# The root is ARCH-gateway of root.sh under an overlay: systemd, python3 and a broker, no compiler, no pip (BOOT_OVER
# names another, such as ARCH, where numpy is installed and compiled already). Inside, the
# service reads a simulated building, a cover is opened, and a subscriber at the broker has to receive the alert.
# Then reload, stop, upgrade and purge. Each step writes NAME=VALUE; the last lines here judge them.
#
# Two lines of the unit cannot be had of qemu-user, which is a program of several threads and forks without namespaces:
# PrivateUsers and LoadCredential. They are off where the processor is emulated; everything else is the package's.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
arch="${1:?usage: boot.sh amd64|arm64|armhf}"
built="$("$here/root.sh" "$arch")"
"$here/root.sh" "$arch" --register
out="$built.out"
package="$(find "$out" -maxdepth 1 -name "checkmeter_*_$arch.deb" | sort | tail -n 1)"
[ -n "$package" ] || { echo "boot.sh: no package in $out: check.sh $arch package builds it" >&2; exit 1; }

layer="$(mktemp -d)"
trap 'umount "$layer/root" 2>/dev/null || true; umount "$layer" 2>/dev/null || true; rmdir "$layer"' EXIT
mount -t tmpfs tmpfs "$layer"
mkdir "$layer/up" "$layer/work" "$layer/root"
mount -t overlay overlay -o "lowerdir=${BOOT_OVER:-$built-gateway},upperdir=$layer/up,workdir=$layer/work" "$layer/root"
root="$layer/root"

inside() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -ec '
        root="$1"; archives="$2"; shift 2
        mount -t proc proc "$root/proc"
        mount --bind "$archives" "$root/var/cache/apt/archives"
        exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive "$@"' sh "$root" "$roots_archives" "$@"
}
roots_archives="$(dirname "$built")/archives-$arch"
mkdir -p "$roots_archives/partial"
cp /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/var/checkmeter.deb"
cp -rn "$built/var/lib/apt/lists" "$root/var/lib/apt/" 2>/dev/null || true
inside apt-get install -y -qq --no-install-recommends /var/checkmeter.deb
inside checkmeter --version
echo "package_kb=$(($(stat -c %s "$package") / 1024)) installed_kb=$(inside dpkg-query -W -f '${Installed-Size}' checkmeter)"
# The next version, of the same files.
dpkg-deb -R "$package" "$layer/next"
sed -i 's/^Version: .*/&+next/' "$layer/next/DEBIAN/control"
dpkg-deb --root-owner-group -Zgzip -z1 --build "$layer/next" "$root/var/next.deb" >/dev/null
rm -rf "$layer/next"

etc="$root/etc/checkmeter"
mkdir -p "$etc" "$root/result"
cat >"$etc/site.toml" <<'SITE'
[site]
tenant = "t"
site = "boot"
gateway = "gw"
[mqtt]
url = "mqtt://127.0.0.1:1883"
[[bus]]
id = "b1"
port = "tcp://127.0.0.1:4059"
poll_s = 5
[[meter]]
id = "main"
bus = "b1"
address = 16
accuracy_class = 1.0
resolution_wh = 1
[[meter]]
id = "flat-1"
bus = "b1"
address = 17
accuracy_class = 1.0
resolution_wh = 1
[[zone]]
id = "building"
main = "main"
subs = ["flat-1"]
[simulation]
seed = 5
history_days = 1
[[simulation.fault]]
kind = "cover"
meter = "flat-1"
onset = "-2h"
SITE
cat >"$root/etc/systemd/system/meters.service" <<'UNIT'
[Unit]
Before=checkmeter.service
[Service]
ExecStart=/usr/bin/checkmeter simulate /etc/checkmeter/site.toml
UNIT
cat >"$root/etc/checkmeter/subscriber.py" <<'PYTHON'
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

client = paho.Client(CallbackAPIVersion.VERSION2, client_id="utility")
client.on_connect = lambda c, *_: c.subscribe("checkmeter/#", qos=1)
client.on_message = lambda c, u, m: open("/result/received", "a").write(f"{m.topic} {m.payload.decode()}\n")
client.connect_async("127.0.0.1", 1883)
client.loop_forever(retry_first_connection=True)
PYTHON
cat >"$root/etc/systemd/system/subscriber.service" <<'UNIT'
[Service]
ExecStart=/usr/lib/checkmeter/bin/python3 /etc/checkmeter/subscriber.py
UNIT
cat >"$root/etc/systemd/system/driver.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
TimeoutStartSec=3000
ExecStart=/bin/bash /etc/checkmeter/driver.sh
StandardOutput=file:/result/out
StandardError=file:/result/err
UNIT
cat >"$etc/driver.sh" <<'DRIVER'
pid() { systemctl show -p MainPID --value checkmeter; }
until_true() { for _ in $(seq 1 "$1"); do eval "$2" && return 0; sleep 1; done; return 1; }
active() { [ "$(systemctl is-active checkmeter)" = active ]; }
until_true 600 active; echo active=$(systemctl is-active checkmeter)
until_true 300 'checkmeter status >/dev/null 2>&1'; checkmeter status >/result/status; echo status_exit=$?
echo user=$(stat -c %U /proc/$(pid))
# What the service has of the unit's hardening, as the kernel has it.
of() { awk -v "name=$1:" '$1 == name { print $2 }' /proc/$(pid)/status; }
echo no_new_privileges=$(of NoNewPrivs) capabilities=$(of CapBnd)
echo seccomp=$(of Seccomp)
for folder in usr etc var/lib/checkmeter; do
    mount=$(awk -v "at=/$folder" 'index(at "/", $5 "/") == 1 || $5 == "/" { if (length($5) >= n) { n = length($5); o = $6 } }
        END { print substr(o, 1, 2) }' /proc/$(pid)/mountinfo)
    echo $folder=$mount
done
until_true 900 'grep -q event/alert /result/received 2>/dev/null'; echo received=$(grep -c event/alert /result/received)
before=$(pid); systemctl reload checkmeter; sleep 10; echo reload=$([ "$(pid)" = "$before" ] && systemctl is-active checkmeter)
systemctl stop checkmeter; echo stop=$(systemctl show -p Result --value checkmeter)
systemctl start checkmeter; until_true 600 active; before=$(pid)
dpkg -i /var/next.deb >/dev/null; until_true 600 active
echo upgraded=$(dpkg-query -W -f '${Version}' checkmeter | grep -c next):$(systemctl is-active checkmeter)
echo restarted=$([ "$(pid)" = "$before" ] && echo no || echo yes)
until_true 300 'checkmeter status >/dev/null 2>&1'; checkmeter status >/dev/null; echo upgraded_status_exit=$?
systemctl stop meters subscriber; dpkg --purge checkmeter >/dev/null
echo purged=$(ls -d /etc/checkmeter /var/lib/checkmeter /usr/lib/checkmeter 2>/dev/null | wc -l):$(getent passwd checkmeter | wc -l)
journalctl -u checkmeter -o cat --no-pager >/result/journal
echo finished=yes
systemctl poweroff
DRIVER
wants="$root/etc/systemd/system/multi-user.target.wants"
mkdir -p "$wants"
for unit in meters subscriber driver; do ln -sf "/etc/systemd/system/$unit.service" "$wants/"; done
ln -sf /usr/lib/systemd/system/checkmeter.service "$wants/"
# Emulated, a start takes a minute: the time-outs are longer than a gateway's.
mkdir -p "$root/etc/systemd/system/checkmeter.service.d"
emulated="$root/etc/systemd/system/checkmeter.service.d/emulated.conf"
printf '[Service]\nTimeoutStartSec=600\nWatchdogSec=600\nTimeoutStopSec=120\n' >"$emulated"
[ "$(dpkg --print-architecture)" = "$arch" ] || printf 'PrivateUsers=no\nLoadCredential=\n' >>"$emulated"
mkdir -p "$out/result"
rm -f "$out/result/"*
timeout --kill-after=20 "${BOOT_TIMEOUT_S:-3000}" systemd-nspawn --boot --quiet --register=no --keep-unit \
    --private-network --machine="checkmeter-$arch" --directory="$root" --bind="$out/result:/result" \
    </dev/null >"$out/result/console" 2>&1 || true
cat "$out/result/out" 2>/dev/null || { tail -n 20 "$out/result/console" >&2; exit 1; }
for expected in active=active status_exit=0 user=checkmeter no_new_privileges=1\ capabilities=0000000000000000 \
    usr=ro etc=ro var/lib/checkmeter=rw reload=active stop=success \
    upgraded=1:active restarted=yes upgraded_status_exit=0 purged=0:0 finished=yes; do
    grep -qx "$expected" "$out/result/out" || { echo "boot.sh: expected $expected" >&2; exit 1; }
done
[ "$(dpkg --print-architecture)" != "$arch" ] || grep -qx seccomp=2 "$out/result/out" ||
    { echo "boot.sh: the filter of system calls is not in force" >&2; exit 1; }
grep -qE '^received=[1-9]' "$out/result/out" || { echo "boot.sh: no alert was received" >&2; exit 1; }
