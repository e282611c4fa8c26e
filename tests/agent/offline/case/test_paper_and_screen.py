"""The evidence page in each language in a real browser, judged by axe-core; and its PDF: fonts, signature, edits."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent.cli.lab.report import command
from agent.offline.case.analysis import analyse
from agent.offline.case.case import from_messages
from agent.offline.case.files import PageFacts, read, result, write
from agent.offline.case.page import RENDERER, page
from agent.offline.case.print import CannotPrint, print_pdf
from agent.offline.case.seal import seal
from agent.offline.case.words import LANGUAGES, catalogue

Building = Any


def _page(building: Building, language: str) -> str:
    made = datetime(2026, 2, 9, tzinfo=UTC)
    facts = PageFacts(renderer=RENDERER, made=made, timezone="Europe/Berlin", language=language)
    files = write(from_messages(building.lines, building.alert_id), facts)
    case, _ = read(files)
    files["result.json"] = result(case, analyse(case, facts.zone))
    return page(seal(files, None))


@pytest.mark.chromium
@pytest.mark.xdist_group("chromium")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", list(LANGUAGES))
def test_axe_finds_nothing_and_nothing_overflows(
    bypassed: Building, browser: Any, axe: str, language: str, tmp_path: Path
) -> None:
    (tmp_path / "case.html").write_text(_page(bypassed, language))
    for scheme, width in (("light", 390), ("dark", 390), ("light", 1100)):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        shown = context.new_page()
        said: list[str] = []
        shown.on("pageerror", lambda error, said=said: said.append(str(error)))
        shown.goto((tmp_path / "case.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        agree = catalogue(language).get(AGREE, AGREE)
        text = shown.inner_text("#recomputed")
        assert all(part in text for part in agree.replace("{count}", "|").replace("{largest}", "|").split("|"))
        shown.evaluate(axe)
        found = shown.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
        assert [(v["id"], v["nodes"][0]["html"][:120]) for v in found] == [], f"{language}, {width} px, {scheme}"
        assert said == []
        context.close()


AGREE = "all {count} figures agree (largest difference {largest})"


@pytest.mark.chromium
@pytest.mark.xdist_group("chromium")
@pytest.mark.timeout(300)
def test_no_octet_of_a_signed_pdf_can_be_changed(bypassed: Building, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "messages.txt").write_text("\n".join(bypassed.lines))
    out, pdf = tmp_path / "case.html", tmp_path / "case.pdf"
    words = [bypassed.alert_id, "-o", str(out), "--messages", str(tmp_path / "messages.txt"), "--pdf"]
    done = CliRunner().invoke(command, [*words, "--key", str(tmp_path / "key.pem")])
    assert done.exit_code == 0, done.output
    check = ["--verify", str(pdf), "--public-key", str(tmp_path / "key.pub")]
    assert CliRunner().invoke(command, check).exit_code == 0
    octets, edits = pdf.read_bytes(), int(os.environ.get("CHECKMETER_EDITS", "30"))
    rng = random.Random(304)
    refused = 0
    for place in rng.sample(range(len(octets)), edits):
        pdf.write_bytes(octets[:place] + bytes([octets[place] ^ rng.randrange(1, 256)]) + octets[place + 1 :])
        refused += CliRunner().invoke(command, check).exit_code == 1
    assert refused == edits
    (tmp_path / "case.pdf.sig").unlink()
    done = CliRunner().invoke(command, check)
    assert (done.exit_code, "the page it was printed from" in done.output) == (1, True)


@pytest.mark.chromium
def test_what_no_font_has_is_named_and_not_printed_as_boxes(
    bypassed: Building, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "case.html"
    out.write_text(_page(bypassed, "zh"))
    (tmp_path / "bin").mkdir()
    lists = tmp_path / "bin" / "fc-list"
    lists.write_text("#!/bin/sh\necho 20-7e a0-24f 2010-2027\n")
    lists.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    with pytest.raises(CannotPrint, match="fonts-noto-cjk"):
        print_pdf(out)
    assert not out.with_suffix(".pdf").exists()
    out.write_text(_page(bypassed, "en"))
    lists.write_text("#!/bin/sh\necho 20-7e a0-24f 2010-22ff\n")
    assert print_pdf(out).read_bytes()[:5] == b"%PDF-"
