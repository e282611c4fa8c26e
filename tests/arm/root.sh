#!/usr/bin/env bash
# Makes the Debian roots that the ARM tests run in: `root.sh ARCHITECTURE` prints the folder of the finished root.
#
# Two roots for each architecture, in $CHECKMETER_ROOTS (default ~/.cache/checkmeter/roots) and kept between runs:
# ARCH-gateway is what a gateway has (systemd, python3, a broker), ARCH adds the compiler and Python's headers.
# CHECKMETER_SUITE=trixie makes those of Debian 13, trixie-ARCH and trixie-ARCH-gateway.
# A root that was cut short is made again; a finished one is a matter of milliseconds. `--register` only makes sure
# that the kernel hands programs of ARCHITECTURE to qemu. It knows nothing of checkmeter.
set -euo pipefail

arch="${1:?usage: root.sh amd64|arm64|armhf [--register]}"
roots="${CHECKMETER_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/checkmeter/roots}"
mirror="${CHECKMETER_MIRROR:-http://deb.debian.org/debian}"
suite="${CHECKMETER_SUITE:-bookworm}"
gateway="systemd,systemd-sysv,dbus,udev,ca-certificates,tzdata,procps,python3,mosquitto"
# armhf: PyPI has no wheels of numpy and cffi for it, Debian has both.
builder=(python3-dev python3-venv python3-pip gcc g++ make git binutils socat python3-numpy python3-cffi)

case "$arch" in
amd64) emulator="" ;;
arm64) emulator=qemu-aarch64 ;;
armhf) emulator=qemu-arm ;;
*) echo "root.sh: $arch is not known: amd64, arm64 or armhf" >&2; exit 2 ;;
esac
name="$arch"
[ "$suite" = bookworm ] || name="$suite-$arch"

if [ -e "$roots/$name/.finished" ] && [ -e "$roots/$name-gateway/.finished" ] && [ "${2:-}" != --register ]; then
    echo "$roots/$name"
    exit 0
fi
[ "$(id -u)" -eq 0 ] || { echo "root.sh: making a Debian root needs root: sudo make test-$arch" >&2; exit 77; }

# The kernel hands ARM programs to qemu; where no systemd did that at boot it is done here.
if [ -n "$emulator" ]; then
    registry=/proc/sys/fs/binfmt_misc
    [ -e "$registry/register" ] || mount -t binfmt_misc binfmt_misc "$registry"
    if [ ! -e "$registry/$emulator" ]; then
        command -v "$emulator-static" >/dev/null || { echo "root.sh: apt install qemu-user-static" >&2; exit 77; }
        /lib/systemd/systemd-binfmt "/usr/lib/binfmt.d/$emulator.conf"
    fi
fi
[ "${2:-}" != --register ] || exit 0
command -v debootstrap >/dev/null || { echo "root.sh: apt install debootstrap" >&2; exit 77; }

mkdir -p "$roots/packages"
exec 9>"$roots/$name.lock"
flock 9

inside() { # what a package's script needs to see, in mounts that end with the command
    local root="$1"
    shift
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -ec '
        root="$1"; shift
        mount -t proc proc "$root/proc"
        exec chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive "$@"' sh "$root" "$@"
}

if [ ! -e "$roots/$name-gateway/.finished" ]; then
    rm -rf "$roots/$name-gateway"
    echo "root.sh: making $roots/$name-gateway" >&2
    unshare --mount debootstrap --arch="$arch" --variant=minbase --include="$gateway" \
        --cache-dir="$roots/packages" "$suite" "$roots/$name-gateway" "$mirror" >"$roots/$name.log" 2>&1 ||
        { tail -n 20 "$roots/$name.log" >&2; exit 1; }
    echo force-unsafe-io >"$roots/$name-gateway/etc/dpkg/dpkg.cfg.d/unsafe-io"
    touch "$roots/$name-gateway/.finished"
fi

if [ ! -e "$roots/$name/.finished" ]; then
    rm -rf "${roots:?}/$name"
    echo "root.sh: making $roots/$name" >&2
    cp -a "$roots/$name-gateway" "$roots/$name"
    rm "$roots/$name/.finished"
    cp /etc/resolv.conf "$roots/$name/etc/resolv.conf"
    inside "$roots/$name" apt-get update -qq >>"$roots/$name.log" 2>&1
    inside "$roots/$name" apt-get install -y -qq --no-install-recommends "${builder[@]}" >>"$roots/$name.log" 2>&1 ||
        { tail -n 20 "$roots/$name.log" >&2; exit 1; }
    # A host behind a proxy that opens TLS has its own authorities.
    cp /etc/ssl/certs/ca-certificates.crt "$roots/$name/etc/ssl/certs/ca-certificates.crt"
    touch "$roots/$name/.finished"
fi
echo "$roots/$name"
