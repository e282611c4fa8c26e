#!/usr/bin/env bash
# Tries this tree on another Debian release, natively: `on_release.sh SUITE [STEP...]`, for example `on_release.sh trixie`.
#
# Steps, all by default: build (environment and kernels with that release's Python), test (the fast part of the suite),
# package (the .deb), install (into a root with no compiler and no pip), demo (from the installed package, once).
# The roots are those of tests/arm/root.sh. Needs root, debootstrap and the network.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tree="$(cd "$here/../../.." && pwd)"
suite="${1:?usage: on_release.sh SUITE [build|test|package|install|demo]...}"
shift
[ "$#" -gt 0 ] || set -- build test package install demo
arch="$(dpkg --print-architecture)"
root="$(CHECKMETER_SUITE="$suite" "$tree/tests/arm/root.sh" "$arch")"
out="$root.out"
mkdir -p "$out" "$root/srv/checkmeter" "$root/out"

enter() { # in ROOT, with the mounts a program wants to see; they end with the command
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -ec '
        root="$1"; out="$2"; shift 2
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        mkdir -p "$root/out"; mount --bind "$out" "$root/out"
        cd "$root"
        exec chroot "$root" /usr/bin/env -i PATH=/srv/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
            OPENBLAS_NUM_THREADS=1 "$@"' sh "$1" "$out" "${@:2}"
}
here_in_root() { enter "$root" sh -c 'cd /srv/checkmeter && exec "$@"' sh "$@"; }

step_build() {
    (cd "$tree" && git ls-files -co --exclude-standard | while read -r f; do [ ! -e "$f" ] || echo "$f"; done |
        tar -cT - | tar -x --no-same-owner -C "$root/srv/checkmeter")
    [ -e "$root/srv/venv/bin/pip" ] || enter "$root" python3 -m venv /srv/venv
    here_in_root pip install --quiet "setuptools>=77" "Cython>=3.1"
    here_in_root pip install --quiet --no-build-isolation -e ".[test]"
    here_in_root python setup.py -q build_ext --inplace
    here_in_root checkmeter --version
}
step_test() {
    here_in_root python -m pytest -q -n 2 -p no:cacheprovider tests/core tests/firmware_io tests/agent/site \
        tests/agent/wire tests/agent/store tests/agent/offline/case tests/agent/pipeline tests/agent/cli
}
step_package() {
    rm -f "$out"/checkmeter_*.deb
    here_in_root env SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git -C "$tree" log -1 --format=%ct)}" \
        python -m agent.deploy.deb /out
}
gateway() { # the installed system, an overlay over the release's gateway root
    layer="$out/gateway"
    mkdir -p "$layer"
    mountpoint -q "$layer" && umount "$layer"
    mount -t tmpfs tmpfs "$layer"
    mkdir "$layer/up" "$layer/work" "$layer/root"
    mount -t overlay overlay -o "lowerdir=$root-gateway,upperdir=$layer/up,workdir=$layer/work" "$layer/root"
    cp /etc/resolv.conf "$layer/root/etc/resolv.conf"
    trap 'umount "$layer/root" "$layer"' EXIT
    enter "$layer/root" sh -ec 'apt-get update -qq; apt-get install -y -qq --no-install-recommends /out/checkmeter_*.deb' \
        >"$out/install.log" 2>&1 || { tail -n 20 "$out/install.log" >&2; return 1; }
}
step_install() {
    gateway
    enter "$layer/root" checkmeter --version
    enter "$layer/root" checkmeter check /usr/share/doc/checkmeter/examples/demo-building.toml
    enter "$layer/root" dpkg-query -W -f 'installed_kb=${Installed-Size} ${Version}\n' checkmeter
}
step_demo() {
    mountpoint -q "$out/gateway/root" || gateway
    enter "$layer/root" checkmeter demo
}

for step in "$@"; do
    began=$SECONDS
    "step_$step"
    echo "on_release.sh: $suite $step passed after $((SECONDS - began)) s"
done
