"""Whether an evidence page is what was sealed: its files, its signature, and every octet that a reader sees.

The page is rendered again from the files inside it and compared. It owns that comparison; what is sealed and how a page
is made are the business of `seal` and `page`.
"""

from __future__ import annotations

import html
import re

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.offline.case.analysis import analyse
from agent.offline.case.case import CaseError
from agent.offline.case.files import read, result
from agent.offline.case.page import RENDERER, page
from agent.offline.case.seal import faults, open_page

PAGE_MAX_OCTETS = 64 * 1024 * 1024  # a year of 500 meters is a tenth of it; more is no page of ours
SHOWN = 60  # octets of text around the first difference


def verify(text: str, trusted_key: Ed25519PublicKey | str | None = None) -> list[str]:
    """What is wrong with a page; empty if all that it shows is what was sealed.

    `trusted_key`: the public key that must have signed it, or its id of 16 hexadecimal digits. Without one, whoever
    made the page may be anybody: then only changes made without a seal of their own are found.
    """
    if len(text) > PAGE_MAX_OCTETS:
        return [f"this is no evidence page of checkmeter: it is larger than {PAGE_MAX_OCTETS} octets"]
    sealed = open_page(text)
    if sealed is None:
        return ["this is no evidence page of checkmeter: it has no manifest"]
    found = faults(sealed, trusted_key)
    try:
        case, facts = read(sealed.files)
        if facts.renderer != RENDERER:
            found.append(
                f"what it shows cannot be checked here: it was made by renderer {facts.renderer}, this program has "
                f"{RENDERER}; verify it with the release that made it (its version stands under Meters)"
            )
            return found
        if sealed.files.get("result.json") != result(case, analyse(case, facts.zone)):
            found.append("result.json is not what the arithmetic gives on readings.csv and alert.json")
        again = page(sealed)
    except CaseError as error:
        return [*found, str(error)]
    except (ArithmeticError, LookupError, ValueError, OSError) as error:  # its octets are anybody's
        return [*found, f"what is sealed inside it makes no page: {type(error).__name__}: {error}"]
    if again != text:
        found.append(_difference(text, again))
    return found


def _difference(text: str, again: str) -> str:
    at, beyond = 0, min(len(text), len(again)) + 1  # where they part: halved again and again, as a page is a megabyte
    while beyond - at > 1:
        middle = (at + beyond) // 2
        at, beyond = (middle, beyond) if text[at:middle] == again[at:middle] else (at, middle)
    return (
        "it does not show what was sealed: it says "
        f"“{_visible(text, at)}” where the sealed figures give “{_visible(again, at)}”"
    )


def _visible(text: str, at: int) -> str:
    cut = text[max(0, at - SHOWN) : at + SHOWN]
    cut = re.sub(r"^[^<>]*>|<[^<>]*$", "", re.sub(r"<[^<>]*>", " ", cut))
    return "".join(c if c.isprintable() else " " for c in html.unescape(cut)).strip() or "(markup)"
