"""An evidence page on paper: a PDF by Chromium, which shows every character or is not made, signed like a release.

It owns the browser's options and the look for fonts. What stands on the page is `page`'s business.
"""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PDF_TIMEOUT_S = 120
FONTS_TIMEOUT_S = 30
# No sandbox as root (CI, a container), no talk with anyone: the page holds all it needs.
BROWSER_OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
)
# Scripts that need a font of their own on Debian, by their first and last character.
_FONTS = (
    (0x0590, 0x08FF, "fonts-noto-core"),
    (0x0900, 0x0FFF, "fonts-noto-core"),
    (0x1100, 0x11FF, "fonts-noto-cjk"),
    (0x2E80, 0xA4CF, "fonts-noto-cjk"),
    (0xAC00, 0xD7FF, "fonts-noto-cjk"),
    (0xF900, 0xFAFF, "fonts-noto-cjk"),
    (0xFF00, 0xFFEF, "fonts-noto-cjk"),
    (0x20000, 0x3FFFF, "fonts-noto-cjk"),
)


class CannotPrint(Exception):
    """No PDF was made; the text says why and what to do."""


def print_pdf(page: Path) -> Path:
    """Print the page at `page` to a PDF beside it.

    Raises:
        CannotPrint: no browser, no font for what the page says, or the browser failed.
    """
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise CannotPrint("--pdf needs Chromium (Debian package chromium)")
    _see_fonts(page.read_text(encoding="utf-8"))
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory(prefix="checkmeter-pdf-") as profile:
        words = [
            browser,
            *BROWSER_OPTIONS,
            f"--user-data-dir={profile}",
            f"--print-to-pdf={target}",
            page.absolute().as_uri(),
        ]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=PDF_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise CannotPrint(f"{browser} took over {PDF_TIMEOUT_S} s") from None
    if done.returncode or not target.exists():
        raise CannotPrint(f"{browser} could not print the page: {done.stderr.strip()[-300:]}")
    return target


def _see_fonts(page: str) -> None:
    """See that this machine's fonts have all that the page says: a browser prints a box for what they lack."""
    shown = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", page, flags=re.DOTALL)
    wanted = {c for c in html.unescape(shown) if ord(c) > 0x7F and c.isprintable()}
    held = _held()
    lacking = sorted(c for c in wanted if not any(first <= ord(c) <= last for first, last in held)) if held else []
    if lacking:
        packages = {package for c in lacking for first, last, package in _FONTS if first <= ord(c) <= last}
        where = " ".join(sorted(packages)) or "fonts-noto-core"
        some = " ".join(lacking[:10]) + (" ..." if lacking[10:] else "")
        raise CannotPrint(f"no font of this machine has {some}, and the PDF would show boxes: sudo apt install {where}")


def _held() -> list[tuple[int, int]]:
    """The characters of all fonts, as ranges; empty where fontconfig cannot be asked."""
    try:
        said = subprocess.run(
            ["fc-list", "--format", "%{charset}\n"], capture_output=True, text=True, timeout=FONTS_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    ranges = []
    for part in set(said.split()):
        first, _, last = part.partition("-")
        ranges.append((int(first, 16), int(last or first, 16)))
    return sorted(ranges)
