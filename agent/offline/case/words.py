"""The languages of a page: English in the code, others from gettext catalogues (locale/LANGUAGE.po).

Texts are `str.format` templates; their figures follow the language. Catalogues are read as they stand: it needs neither
Babel nor a compile step, because a gateway makes pages too, and a translator's file is what is shown. What gateways and
people wrote is never translated.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping
from datetime import datetime, tzinfo
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from agent.wire.values import utc

FOLDER = Path(__file__).parent / "locale"
LANGUAGES = {"en": "English", "de": "Deutsch", "zh": "中文"}
NBSP = "\u00a0"  # between a figure and its unit
_ENTRY = re.compile(r'^msgid ((?:".*"\n)+)msgstr ((?:".*"\n)+)', re.MULTILINE)
_GERMAN = str.maketrans({",": ".", ".": ","})
_MONTHS = {
    "en": ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    "de": ("Jan.", "Feb.", "März", "Apr.", "Mai", "Juni", "Juli", "Aug.", "Sep.", "Okt.", "Nov.", "Dez."),
}


@cache
def catalogue(language: str) -> Mapping[str, str]:
    """The translations of one language by their English text; English needs none."""
    if language == "en":
        return {}
    text = (FOLDER / f"{language}.po").read_text(encoding="utf-8")
    entries = {_joined(one): _joined(other) for one, other in _ENTRY.findall(text)}
    return {one: other for one, other in entries.items() if one and other}


def _joined(quoted: str) -> str:
    return "".join(ast.literal_eval(line) for line in quoted.splitlines())


class Words(string.Formatter):
    """Text, figures and times in one language and time zone."""

    def __init__(self, language: str, zone: tzinfo) -> None:
        self.language = language if language in LANGUAGES else "en"
        self.zone = zone
        self._catalogue = catalogue(self.language)

    def say(self, text: str, **values: Any) -> str:
        """One text of ours with `values` in it."""
        said = self._catalogue.get(text, text)
        return self.vformat(said, (), values) if values else said

    def format_field(self, value: Any, format_spec: str) -> str:
        """See `string.Formatter`: a figure follows the language."""
        shown = format(value, format_spec)
        figure = isinstance(value, int | float | np.floating)
        return shown.translate(_GERMAN) if figure and self.language == "de" else shown

    def number(self, value: float, form: str) -> str:
        """A figure by a format specification."""
        return self.format_field(value, form)

    def time(self, value: datetime | float) -> str:
        """A moment to the minute; UTC seconds or a time with an offset."""
        moment = (utc(value) if isinstance(value, float) else value).astimezone(self.zone)
        if self.language == "zh":
            return f"{moment.year}年{moment.month}月{moment.day}日 {moment:%H:%M}"
        point = "." if self.language == "de" else ""
        return f"{moment:%d}{point} {_MONTHS[self.language][moment.month - 1]} {moment:%Y %H:%M}"

    def day(self, moment: datetime) -> str:
        """A day on the axis of a chart; `moment` is local."""
        if self.language == "zh":
            return f"{moment.month}月{moment.day}日"
        point = "." if self.language == "de" else ""
        return f"{moment:%d}{point} {_MONTHS[self.language][moment.month - 1]}"

    def percent(self, share: float | None) -> str:
        """A share of 0 to 1 in percent, with a decimal where it nears either end."""
        if share is None:
            return "-"
        return f"{self.number(100 * share, '.0f' if 0.005 < share < 0.995 else '.1f')}{NBSP}%"

    def watts(self, value: float) -> str:
        """A power in W; a dash where it is not known."""
        return "-" if not np.isfinite(value) else f"{self.number(round(value) + 0.0, ',.0f')}{NBSP}W"
