#!/usr/bin/env bash
# Runs a command in this source tree's copy inside the root of an architecture: `inside.sh ARCHITECTURE COMMAND...`.
#
# It makes the root where there is none (root.sh), copies what git knows or would add, fills a virtual environment that
# sees Debian's numpy with what pyproject.toml asks for (environment.py), and builds the kernels. Mounts and processes
# end with the command; the network is the host's. What the command writes to /out is in $CHECKMETER_ROOTS/ARCH.out.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
tree="$(cd "$here/../.." && pwd)"

arch="${1:?usage: inside.sh amd64|arm64|armhf COMMAND...}"
shift
root="$("$here/root.sh" "$arch")"
"$here/root.sh" "$arch" --register
[ "$(id -u)" -eq 0 ] || { echo "inside.sh: a change of root needs root: sudo make test-$arch" >&2; exit 77; }
out="$root.out"
mkdir -p "$root/srv/checkmeter" "$root/out" "$out"

# Each working tree has a copy of its own, so that two of them can be tested at a time; inside, it is /srv/checkmeter.
copy="$root.trees/$(echo "$tree" | sha256sum | cut -c1-16)"
mkdir -p "$copy"
for other in "$root.trees"/*; do # of a tree that is no more
    of="$(cat "$other/.copy-of" 2>/dev/null)" || continue
    [ -d "$of" ] || rm -rf "$other"
done
echo "$tree" >"$copy/.copy-of"
(cd "$tree" && git ls-files -co --exclude-standard --deduplicate | while read -r f; do [ ! -e "$f" ] || echo "$f"; done) |
    sort >"$copy/.sources"
(cd "$copy" && find . -mindepth 1 \( -name build -o -name '*.egg-info' -o -name __pycache__ \) -prune -o \
    -type f ! -name '*.so' ! -name '*.c' ! -path './.*' -printf '%P\n' | sort | comm -23 - .sources | xargs -r -d '\n' rm -f)
(cd "$tree" && rsync -a --files-from="$copy/.sources" ./ "$copy/")

# Environment and kernels are made by one at a time. Kernels are kept by what they were made from: emulated, Cython
# and the compiler take minutes.
mkdir -p "$root.kernels"
exec 8>"$root.kernels/.lock"
flock 8
made_from="$(cd "$copy" && (grep '\.pyx$' .sources | xargs cat; grep extra_compile_args setup.py) | sha256sum | cut -c1-16)"
kernels="$root.kernels/$made_from"
[ ! -d "$kernels" ] || rsync -a "$kernels/" "$copy/"

# Where the host has Debian's cross compiler for it, that one stands in for the root's own: the same compiler at the
# host's speed, for emulated it takes a quarter of an hour. Only its own files and libraries are lent.
case "$arch" in
arm64) triplet=aarch64-linux-gnu ;;
armhf) triplet=arm-linux-gnueabihf ;;
*) triplet="" ;;
esac
lent=()
if [ -n "$triplet" ] && [ "$(dpkg --print-architecture)" = amd64 ] && [ -x "/usr/bin/$triplet-gcc-12" ]; then
    for path in "/usr/bin/$triplet-gcc-12" "/usr/bin/$triplet-as" "/usr/bin/$triplet-ld.bfd" \
        /usr/lib/gcc-cross "/usr/$triplet" /usr/lib/x86_64-linux-gnu /lib64; do
        [ ! -d "$path" ] || mkdir -p "$root$path"
        lent+=("$path")
    done
fi

enter() {
    # shellcheck disable=SC2016
    unshare --mount --pid --fork --kill-child sh -ec '
        root="$1"; out="$2"; lent="$3"; copy="$4"; shift 4
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        mount --bind "$out" "$root/out"
        mount --bind "$copy" "$root/srv/checkmeter"
        for path in $lent; do mount --bind "$path" "$root$path"; done
        exec chroot "$root" /usr/bin/env -i PATH=/srv/venv/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
            PIP_CERT=/etc/ssl/certs/ca-certificates.crt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$@"' sh "$root" "$out" "${lent[*]}" "$copy" "$@"
}

# The virtual environment: made inside, filled from the host, which is what takes no time. msgspec has no wheel for armhf.
host="$tree/.venv/bin/python"
[ -x "$host" ] || host="${PYTHON:-python3}"
site="$root/srv/venv/lib/python3.11/site-packages"
want="$(cd "$tree" && sha256sum pyproject.toml tests/arm/environment.py | sha256sum)"
if [ "$(cat "$root/srv/venv/.made-for" 2>/dev/null)" != "$want" ]; then
    mkdir -p "$root/srv/wheels"
    [ -e "$root/srv/venv/bin/python" ] || enter python3 -m venv --system-site-packages --without-pip /srv/venv
    msgspec="$("$host" -c 'from importlib.metadata import version; print(version("msgspec"))')"
    if [ "$arch" = armhf ] && ! ls "$root/srv/wheels/msgspec-$msgspec-"*.whl >/dev/null 2>&1; then
        enter python3 -m pip wheel --quiet --no-deps --wheel-dir /srv/wheels "msgspec==$msgspec"
    fi
    "$host" "$here/environment.py" "$arch" "$site" "$root/srv/wheels"
    echo /srv/checkmeter >"$site/checkmeter.pth"
    echo "$want" >"$root/srv/venv/.made-for"
fi

if [ ! -d "$kernels" ]; then
    # shellcheck disable=SC2016
    enter sh -c 'cd /srv/checkmeter && python setup.py -q build_ext --inplace'
    mkdir -p "$kernels.part"
    (cd "$copy" && find agent core firmware_io -name '*.so' | rsync -a --files-from=- ./ "$kernels.part/")
    mv -T "$kernels.part" "$kernels"
fi
exec 8>&-
[ "$copy/checkmeter.egg-info/PKG-INFO" -nt "$copy/pyproject.toml" ] ||
    (cd "$copy" && "$host" setup.py -q egg_info && touch checkmeter.egg-info/PKG-INFO)
# shellcheck disable=SC2016
enter ${triplet:+CHECKMETER_EMULATED="$arch"} \
    sh -c 'cd /srv/checkmeter; export PIP_FIND_LINKS=/srv/wheels; exec "$@"' sh "$@"
