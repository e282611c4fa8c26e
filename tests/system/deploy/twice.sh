#!/usr/bin/env bash
# Builds the Debian package twice from the committed sources, in folders, umasks, time zones and languages that differ,
# and compares the two octet by octet: `twice.sh PYTHON`, a Python with what `make build` installs.
set -euo pipefail
python="$(realpath -s "${1:?usage: twice.sh PYTHON}")"
cd "$(dirname "$0")/../../.."
SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)"
export SOURCE_DATE_EPOCH
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
once() { # FOLDER UMASK
    mkdir -p "$scratch/$1" "$scratch/out-$2"
    git archive HEAD | tar -x -C "$scratch/$1"
    (cd "$scratch/$1" && umask "$2" && "$python" setup.py -q build_ext --inplace >/dev/null 2>&1 &&
        PYTHONPATH="$PWD" "$python" -c "
import sys; sys.path.insert(0, '.')
from agent.deploy import deb; sys.exit(deb.main(['', '$scratch/out-$2']))")
}
TZ=Asia/Shanghai LC_ALL=C once a 022
TZ=America/Lima LC_ALL=C.UTF-8 once "another folder, deeper/b" 077
sha256sum "$scratch"/out-*/*.deb
cmp "$scratch"/out-022/*.deb "$scratch"/out-077/*.deb
echo "the same octets twice"
