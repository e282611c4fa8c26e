"""The page's languages: English in the templates, others from gettext catalogues (locale/LANGUAGE/LC_MESSAGES/*.po).

The catalogues are read as they stand, without a compile step: a translator's file is what is shown. Numbers and dates
follow the language.
"""

from __future__ import annotations

import gettext
from datetime import tzinfo
from functools import cache
from io import BytesIO
from pathlib import Path

from babel import Locale
from babel.dates import format_date, format_datetime
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.numbers import format_decimal

from agent.wire.values import utc

FOLDER = Path(__file__).parent / "locale"
LANGUAGES = {"en": "English", "zh": "中文"}


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The translations of one language; English needs none."""
    path = FOLDER / language / "LC_MESSAGES" / "web.po"
    if language == "en" or not path.exists():
        return gettext.NullTranslations()
    compiled = BytesIO()
    with path.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def chosen(asked: str, cookie: str, accepts: str) -> str:
    """The language: as asked for in this request, as asked for before, as the browser says, or English."""
    wishes = [asked, cookie, *(part.split(";")[0].strip()[:2].lower() for part in accepts.split(","))]
    return next((wish for wish in wishes if wish in LANGUAGES), "en")


class Words:
    """Text, numbers and times in one language."""

    def __init__(self, language: str, zone: tzinfo) -> None:
        self.language = language
        self._zone = zone
        self._locale = Locale.parse("zh_Hans_CN" if language == "zh" else "en_GB")
        self._catalogue = catalogue(language)

    def say(self, text: str) -> str:
        """One text of ours; what gateways sent is never translated."""
        return self._catalogue.gettext(text) if text else ""

    def some(self, one: str, many: str, n: int) -> str:
        """With a number in it, `%(n)s`."""
        return self._catalogue.ngettext(one, many, n) % {"n": self.number(n, 0)}

    def number(self, value: object, digits: int = 1) -> str:
        """A figure, or a dash where there is none."""
        if value is None:
            return "–"
        pattern = "#,##0" + ("." + "0" * digits if digits else "")
        return format_decimal(round(float(str(value)), digits) + 0.0, format=pattern, locale=self._locale)

    def percent(self, share: object, digits: int = 0) -> str:
        """A share of 1."""
        return "–" if share is None else f"{self.number(100 * float(str(share)), digits)} %"

    def time(self, seconds: object) -> str:
        """A moment, to the minute."""
        if seconds is None:
            return "–"
        return format_datetime(utc(float(str(seconds))).astimezone(self._zone), "d MMM y HH:mm", locale=self._locale)

    def day(self, seconds: object) -> str:
        """A day."""
        if seconds is None:
            return "–"
        return format_date(utc(float(str(seconds))).astimezone(self._zone).date(), "medium", locale=self._locale)

    def age(self, seconds: object) -> str:
        """How long ago, in one unit."""
        if seconds is None:
            return "–"
        value = max(0.0, float(str(seconds)))
        for limit, unit_s, one, many in (
            (5400.0, 60.0, "%(n)s minute", "%(n)s minutes"),
            (48 * 3600.0, 3600.0, "%(n)s hour", "%(n)s hours"),
            (float("inf"), 86_400.0, "%(n)s day", "%(n)s days"),
        ):
            if value < limit:
                return self.some(one, many, round(value / unit_s))
        raise AssertionError("no age is longer than for ever")
