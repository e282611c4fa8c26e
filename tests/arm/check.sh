#!/usr/bin/env bash
# Tests this tree on another architecture, in a Debian root under qemu: `check.sh ARCHITECTURE [STEP...]`.
#
# Steps, all of them by default: kernels, unit, replay, fuzz, memory, package, demo; and short, a part of kernels. Each is
# named with its result and the time it took; the exit code is 1 if any failed. docs/gateways.md says what was found with it, and what emulation
# cannot show.
set -uo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
cd "$here/../.."
arch="${1:?usage: check.sh arm64|armhf [kernels|short|unit|replay|fuzz|memory|package|demo]...}"
shift
[ "$#" -gt 0 ] || set -- kernels unit replay fuzz memory package demo
out="${CHECKMETER_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/checkmeter/roots}/$arch.out"
host=(.venv/bin/python)
[ -x "${host[0]}" ] || host=("${PYTHON:-python3}")
inside=("$here/inside.sh" "$arch")
pytest=(python -m pytest -q -p no:cacheprovider -p no:randomly --timeout 3000)
# Kernels and what stands directly on them: the word size, the alignment and the arithmetic of a processor.
kernels=(tests/firmware_io/dlms/test_kernel.py tests/firmware_io/test_octets.py tests/core/registers
    tests/core/balance tests/core/forecast/test_peaks.py tests/agent/alerts/test_book.py)

step_kernels() { "${inside[@]}" "${pytest[@]}" "${kernels[@]}"; }
# For the test suite: without the hundreds of examples that take four fifths of the time.
step_short() { "${inside[@]}" "${pytest[@]}" "${kernels[@]}" -k "not twin and not its_results and not conserve"; }
# Folder by folder, all in one copy of the tree: a run that is cut short has said what it had, and UNIT="tests/core/balance"
# runs a part of it. What trains or evaluates needs libraries of a workstation.
step_unit() {
    local parts=(tests/core/*/ tests/core/test_*.py tests/agent/*/ tests/firmware_io/*/ tests/firmware_io/test_*.py)
    [ -z "${UNIT:-}" ] || read -ra parts <<<"$UNIT"
    # shellcheck disable=SC2016
    "${inside[@]}" sh -c '
        parts="$1"; shift; failed=0
        for part in $parts; do
            [ "${part%__pycache__/}" = "$part" ] || continue
            echo "check.sh: unit $part"
            "$@" "$part" || failed=1
        done
        exit "$failed"' sh "${parts[*]}" "${pytest[@]}" -n "${WORKERS:-2}" --dist loadgroup \
        --ignore=tests/agent/offline/training/test_train.py --ignore=tests/agent/offline/evaluation
}
step_replay() {
    rm -rf "$out/recorded"
    mkdir -p "$out/recorded"
    "${host[@]}" tests/arm/recorded.py make "$out/recorded/in" &&
        "${host[@]}" tests/arm/recorded.py replay "$out/recorded/in" "$out/recorded/host" &&
        NPY_DISABLE_CPU_FEATURES="AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL" \
            "${host[@]}" tests/arm/recorded.py replay "$out/recorded/in" "$out/recorded/baseline" &&
        "${inside[@]}" python tests/arm/recorded.py replay /out/recorded/in /out/recorded/there &&
        "${host[@]}" tests/arm/recorded.py compare "$out/recorded/host" "$out/recorded/there" --ids &&
        "${host[@]}" tests/arm/recorded.py compare "$out/recorded/baseline" "$out/recorded/there"
}
step_fuzz() { # the codecs: it is in them that the size of a word shows
    "${inside[@]}" python -m tests.system.fuzz.fuzz --seconds "${FUZZ_SECONDS:-86400}" --inputs "${FUZZ_INPUTS:-200000}" \
        --only framer --only values --only apdus --only wrapper --only times
}
step_memory() { # pages of a 32-bit guest can be told from qemu's, those of a 64-bit one cannot
    [ "$arch" = armhf ] && "${host[@]}" tests/arm/memory.py || [ "$arch" != armhf ]
}
step_package() {
    rm -f "$out"/checkmeter_*.deb
    # From the locked files alone: a wheel that was made here has no digest in the lock.
    "${inside[@]}" env -u PIP_FIND_LINKS SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
        python -m agent.deploy.deb /out && "$here/boot.sh" "$arch"
}
# Emulated seconds are long: the building's time waits for them.
step_demo() {
    "${inside[@]}" python -m agent.cli.main demo examples/demo-building.toml --speed "${DEMO_SPEED:-1800}"
}

failed=0
for step in "$@"; do
    began=$SECONDS
    if "step_$step"; then verdict=passed; else verdict=FAILED failed=1; fi
    echo "check.sh: $arch $step $verdict after $((SECONDS - began)) s"
done
exit "$failed"
