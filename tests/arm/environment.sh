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
    # The tree itself is not installed, only seen: that would compile its kernels once more.
    $pip "setuptools>=77" "Cython>=3.1" $(python3 - <<'PYTHON'
import re, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
peers = [p for p in project["optional-dependencies"]["test"] if re.match("dlms|gurux|hypothesis|jsonschema|pytest", p)]
print("rich>=13", *(d.partition(";")[0].strip() for d in project["dependencies"] + peers if "3.12'" not in d or "< '3.12'" in d))
PYTHON
)
    echo /srv/checkmeter >$venv/lib/python3.11/site-packages/checkmeter.pth
    echo "$want" >$venv/.made-for
fi
[ -d checkmeter.egg-info ] || $venv/bin/python setup.py -q egg_info
$venv/bin/python setup.py -q build_ext --inplace
