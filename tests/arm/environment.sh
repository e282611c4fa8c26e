# Inside a root: the virtual environment of pyproject.toml, as far as there is something to install, and the kernels.
#
# It sees Debian's numpy and cffi, as the package on a gateway does. What trains models has no wheels for armhf and is
# left out: those tests skip themselves. msgspec is compiled once and kept.
set -e
venv=/srv/venv
# Another version or another kernel needs nothing new; another dependency does.
want="$(python3 -c 'import tomllib; print(tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"])')"
if [ "$(cat $venv/.made-for 2>/dev/null)" != "$want" ]; then
    test -x $venv/bin/pip || python3 -m venv --system-site-packages $venv
    pip="$venv/bin/pip install --quiet --find-links /srv/wheels"
    $venv/bin/pip wheel --quiet --no-deps --find-links /srv/wheels --wheel-dir /srv/wheels "msgspec>=0.18"
    $pip "setuptools>=77" "Cython>=3.1" wheel
    $pip --no-build-isolation -e . "rich>=13" "pytest>=8" "pytest-timeout>=2.3" "hypothesis>=6.100" "jsonschema>=4.20" \
        "dlms-cosem==25.1.0" "gurux-dlms==1.0.203"
    echo "$want" >$venv/.made-for
fi
$venv/bin/python setup.py -q build_ext --inplace
