#!/usr/bin/env bash
# Builds the Debian package twice from the committed sources, in folders, umasks, time zones and languages that differ,
# and compares the two octet by octet: `twice.sh PYTHON`, a Python with what `make build` installs.
set -euo pipefail
python="$(realpath -s "${1:?usage: twice.sh PYTHON}")"
cd "$(dirname "$0")/../../.."
commit="$(git rev-parse HEAD)"
tree="$PWD"
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct "$commit")"
export SOURCE_DATE_EPOCH
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
once() { # FOLDER UMASK
    mkdir -p "$scratch/$1" "$scratch/out-$2"
    git archive "$commit" | tar -x -C "$scratch/$1"
    # The tree's own kernels only make the manual pages; those of the package are compiled anew.
    (cd "$tree" && find core firmware_io -name '*.so' -print0 | tar -c --null -T -) | tar -x -C "$scratch/$1"
    (cd "$scratch/$1" && umask "$2" && PYTHONPATH="$PWD" "$python" -c "
import sys; sys.path.insert(0, '.')
from agent.deploy import deb; sys.exit(deb.main(['', '$scratch/out-$2']))")
}
TZ=Asia/Shanghai LC_ALL=C once a 022
TZ=America/Lima LC_ALL=C.UTF-8 once "another folder, deeper/b" 077
sha256sum "$scratch"/out-*/*.deb
cmp "$scratch"/out-022/*.deb "$scratch"/out-077/*.deb
echo "the same octets twice"
