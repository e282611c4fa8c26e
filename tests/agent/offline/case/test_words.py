"""The page's languages: no text without a translation, the same figures in each, and each page verifies."""

from __future__ import annotations

import ast
import string
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.offline.case.analysis import analyse
from agent.offline.case.case import from_messages
from agent.offline.case.files import PageFacts, read, result, write
from agent.offline.case.page import RENDERER, page
from agent.offline.case.seal import seal
from agent.offline.case.verify import verify
from agent.offline.case.words import FOLDER, LANGUAGES, Words, catalogue

SOURCE = FOLDER.parent
OTHERS = [language for language in LANGUAGES if language != "en"]
FORMS = ("KINDS", "SUSPICIONS", "WAYS", "KIND_NAMES", "SIGNS")  # tables of texts
NAMES = ("name", "figures")  # texts that stand in a variable before they are used


def constants(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)
    elif isinstance(node, ast.Tuple):
        for element in node.elts:
            yield from constants(element)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from constants(value)


def texts_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            for argument in node.args[: {"say": 1, "Alternative": 2}.get(name, 0)]:
                yield from constants(argument)
        elif isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                target, value = target.elts[0], value.elts[0]
            if getattr(target, "id", "") in (*FORMS, *NAMES):
                yield from constants(value)
        elif isinstance(node, ast.ClassDef) and node.name == "Verdict":
            for member in node.body:
                if isinstance(member, ast.Assign):
                    yield from constants(member.value)


def all_texts() -> set[str]:
    found = {"raised", "updated", "cleared"}
    for path in SOURCE.glob("*.py"):
        found |= set(texts_of(ast.parse(path.read_text())))
    return found


def fields(text: str) -> list[tuple[str | None, str | None]]:
    return sorted((name, form) for _, name, form, _ in string.Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", OTHERS)
def test_every_text_is_translated_and_none_is_left_over(language: str) -> None:
    texts = all_texts()
    assert len(texts) > 120
    assert catalogue(language).keys() == texts


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_the_same_figures_in_it(language: str) -> None:
    for english, translated in catalogue(language).items():
        assert fields(translated) == fields(english), translated


@pytest.mark.parametrize("language", OTHERS)
def test_the_catalogues_are_gettexts(language: str) -> None:
    """Read by another implementation, they say the same."""
    pofile = pytest.importorskip("babel.messages.pofile")
    with (FOLDER / f"{language}.po").open("rb") as file:
        entries = {message.id: message.string for message in pofile.read_po(file, locale=language) if message.id}
    assert entries == dict(catalogue(language))


def test_figures_and_times_follow_the_language() -> None:
    moment = datetime(2026, 3, 2, 16, 5, tzinfo=UTC)
    english, german, chinese = (Words(language, UTC) for language in ("en", "de", "zh"))
    assert [w.time(moment) for w in (english, german, chinese)] == [
        "02 Mar 2026 16:05",
        "02. März 2026 16:05",
        "2026年3月2日 16:05",
    ]
    assert german.watts(1234.0) == "1.234\u00a0W"
    assert german.percent(0.997) == "99,7\u00a0%"
    assert german.say("Standard uncertainty of the gateway's balance: {kwh:.2f} kWh.", kwh=0.5).endswith("0,50 kWh.")
    assert german.say("contact {contact}", contact="a.b {c}, d") == "Ansprechpartner a.b {c}, d"
    assert Words("tlh", UTC).say("Remainder") == "Remainder"


@pytest.mark.parametrize("language", OTHERS)
def test_a_page_in_each_language_verifies_and_holds_the_same_case(bypassed: Any, language: str, tmp_path: Path) -> None:
    facts = PageFacts(
        renderer=RENDERER, made=datetime(2026, 2, 9, tzinfo=UTC), timezone="Europe/Berlin", language=language
    )
    files = write(from_messages(bypassed.lines, bypassed.alert_id), facts)
    case, _ = read(files)
    files["result.json"] = result(case, analyse(case, facts.zone))
    text = page(seal(files, None))
    assert verify(text) == []
    assert f'<html lang="{language}">' in text
    assert catalogue(language)["What was measured"] in text
    assert "What was measured" not in text
    assert any("does not show" in fault for fault in verify(text.replace("flat-302", "flat-301")))
