"""The package's copyright file in Debian's machine-readable form, from what the packed distributions say themselves.

It reads each distribution's metadata and licence files below a site-packages folder. What a wheel leaves out but holds
(TensorFlow Lite's authors, OpenSSL within cryptography) stands in the tables here. A distribution of which neither
tells the licence stops the build: nothing goes out whose terms nobody can read.
Source: Debian's copyright-format 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path

from agent.deploy.sbom import normal

_FORMAT = "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
_APACHE = "On Debian systems the full text of the Apache License 2.0 is in /usr/share/common-licenses/Apache-2.0."
_OURS = "checkmeter"

# How distributions spell their licence -> its name in the copyright format.
_SPELLINGS = {
    "apache 2.0": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "apache-2.0 or bsd-3-clause": "Apache-2.0 or BSD-3-clause",
    "bsd": "BSD-3-clause",
    "bsd license": "BSD-3-clause",
    "bsd-3-clause": "BSD-3-clause",
    "epl-2.0 or bsd-3-clause": "EPL-2.0 or BSD-3-clause",
    "mit": "Expat",
    "mit license": "Expat",
    "mpl-2.0 and mit": "MPL-2.0 and Expat",
    "psf-2.0": "PSF-2.0",
    "3-clause bsd license": "BSD-3-clause",
}
# Who holds the rights where neither a licence file nor the metadata's author says it.
_HOLDERS = {
    "checkmeter": "2026 the checkmeter authors",
    "backports-strenum": "Chris L. Barnes and the Python Software Foundation",
    "cryptography": "2013-2026 Individual contributors",
    "tflite-runtime": "2017-2023 The TensorFlow Authors",
    "ai-edge-litert": "2017-2026 The TensorFlow Authors, Google LLC",
    "ml-dtypes": "2022-2026 The ml_dtypes Authors",
    "protobuf": "2008 Google Inc.",
}
# What is linked into a distribution's shared objects.
_WITHIN = {
    "cryptography": "Its shared object holds OpenSSL (Apache-2.0) and Rust libraries (Apache-2.0 or Expat).",
    "tflite-runtime": "Its shared object holds TensorFlow Lite, FlatBuffers, XNNPACK, ruy, Eigen and pybind11.",
    "ml-dtypes": "Its shared object holds code of Eigen (MPL-2.0: /usr/share/common-licenses/MPL-2.0).",
    "ai-edge-litert": "Its shared objects hold TensorFlow Lite, FlatBuffers, XNNPACK, ruy, Eigen and pybind11.",
}
# The terms of those that ship no licence file.
_BSD_3 = """\
Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions
and the following disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions
and the following disclaimer in the documentation and/or other materials provided with the
distribution.

3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse
or promote products derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF
THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."""
_TERMS = {"Apache-2.0": _APACHE, "BSD-3-clause": _BSD_3}


def copyright_file(site: Path, below: str) -> str:
    """The text of /usr/share/doc/PACKAGE/copyright for what lies in `site`, which is installed at `below`.

    Raises:
        RuntimeError: a distribution says no licence, one that is not known here, or ships none of its terms.
    """
    found = sorted(distributions(path=[str(site)]), key=_name)
    stanzas = [f"Format: {_FORMAT}\nUpstream-Name: checkmeter\nComment:\n{_indented(_PREFACE)}"]
    stanzas += [_stanza("*", _HOLDERS[_OURS], "Apache-2.0", _APACHE)]
    for distribution in found:
        name = _name(distribution)
        if name == _OURS:
            continue
        terms = "\n\n".join(_licence_texts(distribution))
        licence = _licence(distribution, terms)
        if licence == "Apache-2.0":
            terms = _APACHE
        elif not terms:
            if licence not in _TERMS:
                raise RuntimeError(f"{name} ships no text of its licence ({licence}): put it into copyright.py")
            terms = _TERMS[licence]
        elif "Apache-2.0" in licence:
            terms = f"{_APACHE}\n\n{terms}"
        paths = " ".join(
            f"{below}/{top}/*" if "." not in top else f"{below}/{top}" for top in _tops(distribution, site)
        )
        stanzas.append(_stanza(paths, _holder(distribution, terms), licence, terms, _WITHIN.get(name, "")))
    return "\n\n".join(stanzas) + "\n"


_PREFACE = """checkmeter, and the Python distributions that it needs at run time and that Debian does not bring, as they
were published. Versions and digests: sbom.cdx.json beside this file."""


def _stanza(files: str, holder: str, licence: str, terms: str, comment: str = "") -> str:
    said = f"Comment:\n{_indented(comment)}\n" if comment else ""
    return f"Files: {files}\nCopyright: {holder}\n{said}License: {licence}\n{_indented(terms)}"


def _indented(text: str) -> str:
    return "\n".join(f" {line.rstrip()}" if line.strip() else " ." for line in text.strip().splitlines())


def _name(distribution: Distribution) -> str:
    return normal(str(distribution.metadata["Name"]))


def _licence(distribution: Distribution, terms: str) -> str:
    about = distribution.metadata
    said = (_field(about, "License-Expression") or _field(about, "License")).strip()
    if not said or "\n" in said:
        classifiers = [c.rpartition("::")[2].strip() for c in about.get_all("Classifier") or () if "License ::" in c]
        said = classifiers[0] if len(classifiers) == 1 else said
    if not said and "Apache License" in terms:
        said = "Apache-2.0"
    if said.lower() not in _SPELLINGS:
        raise RuntimeError(f"{_name(distribution)} is under {said or 'no licence'!r}: look at it, then name it here")
    return _SPELLINGS[said.lower()]


def _field(about: PackageMetadata, name: str) -> str:
    return str(about[name]) if name in about else ""


def _licence_texts(distribution: Distribution) -> list[str]:
    wanted = re.compile(r"(^|/)(licen[cs]e|copying|notice|edl|epl)[^/]*$", re.IGNORECASE)
    held = [path for path in _files(distribution) if wanted.search(str(path))]
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in sorted(held)]
    return [text for text in texts if "Apache License\n" not in text]


def _files(distribution: Distribution) -> Iterable[Path]:
    folder = Path(str(distribution.locate_file("")))
    (about,) = (p for p in folder.glob("*.dist-info") if normal(p.stem.rpartition("-")[0]) == _name(distribution))
    return (path for path in about.rglob("*") if path.is_file())


def _holder(distribution: Distribution, terms: str) -> str:
    name = _name(distribution)
    if name in _HOLDERS:
        return _HOLDERS[name]
    said = re.search(r"^\s*Copyright (?:\(c\)|©)?\s*(\d{4}.*)$", terms, re.IGNORECASE | re.MULTILINE)
    about = distribution.metadata
    author = said[1] if said else _field(about, "Author") or _field(about, "Author-email")
    if not author.strip():
        raise RuntimeError(f"nobody is named as the author of {name}: put the holder into copyright.py")
    return author.strip().rstrip(".")


def _tops(distribution: Distribution, site: Path) -> list[str]:
    """What lies at the top of `site` and is this distribution's."""
    files = distribution.files or ()
    tops = {path.parts[0] for path in files if path.parts and path.parts[0] not in ("..", "bin")}
    return sorted(top for top in tops if (site / top).exists())
