"""The evidence page: its arithmetic finds what was put in, its seal holds, and a real browser shows and prints it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agent import wire
from agent.cli.lab.report import command
from agent.keys.signing import key_id
from agent.offline.case.analysis import Verdict, analyse
from agent.offline.case.case import CaseError, from_messages
from agent.offline.case.files import PageFacts, read, result, write
from agent.offline.case.page import RENDERER, page
from agent.offline.case.print import BROWSER_OPTIONS
from agent.offline.case.seal import open_page, seal
from agent.offline.case.verify import verify
from agent.utility.ingest.decode import Reader
from agent.utility.mqtt.packets import Publish
from agent.utility.sql.store import open_store
from agent.wire.values import derived_uuid

ALERT_ID = "ntl-building-1"
Building = Any


def verdicts(building: Building) -> dict[str, Verdict]:
    """Verdict of each alternative explanation, by its first words."""
    analysis = analyse(from_messages(building.lines, ALERT_ID), UTC)
    return {a.name: a.verdict for a in analysis.alternatives}


def test_the_plain_comparison_finds_the_power_that_was_taken(bypassed: Building) -> None:
    analysis = analyse(from_messages(bypassed.lines, ALERT_ID), UTC)
    assert analysis.missing_w == pytest.approx(bypassed.missing_w, rel=0.05)
    assert analysis.suspect == "flat-302"
    assert analysis.suspect_after_w == pytest.approx(1000 / 30 / 24, rel=0.01)
    assert analysis.before is not None
    assert abs(analysis.before.residual_w) < 1
    assert (analysis.before.days, analysis.after.days) == (24, 14)


def test_for_a_bypass_no_other_explanation_is_more_than_unlikely(make_building: Any) -> None:
    """And the sums alone close only what is a matter of sums, where the gateway states next to nothing of it."""
    found = verdicts(make_building(unexplained=0.004))
    assert {name for name, verdict in found.items() if verdict is Verdict.AGAINST} == {
        "Errors of the meters", "Technical loss (copper, meters' own use)"
    }  # fmt: skip
    assert set(found.values()) == {Verdict.AGAINST, Verdict.UNLIKELY}
    assert set(verdicts(make_building()).values()) == {Verdict.UNLIKELY}  # nobody says how probable the rest is


@pytest.mark.parametrize("ahead", [0.11, 0.4])
def test_what_the_gateway_holds_possible_the_page_does_not_close(make_building: Any, ahead: float) -> None:
    found = verdicts(make_building(upstream=ahead, unexplained=0.15))
    assert found["A meter that is not read, or unmetered common load"] is Verdict.POSSIBLE
    assert Verdict.AGAINST not in found.values()
    text = _page(make_building(upstream=ahead, unexplained=0.15), None)
    assert f"at most {100 * ahead:.0f}\u00a0%" in text
    assert "ruled out" not in text


def test_an_empty_flat_is_not_accused_by_the_arithmetic(make_building: Any) -> None:
    found = verdicts(make_building(bypass=False, vacant=True))
    assert found["flat-302 is merely empty or thrifty"] is Verdict.POSSIBLE
    assert found["Errors of the meters"] is not Verdict.AGAINST


def test_without_days_before_the_page_says_what_is_possible(make_building: Any) -> None:
    found = verdicts(make_building(days=12, onset_day=0))
    assert found["A meter that is not read, or unmetered common load"] is Verdict.POSSIBLE
    assert found["flat-302 is merely empty or thrifty"] is Verdict.POSSIBLE


def test_the_page_says_from_which_loss_on_it_would_be_found(bypassed: Building) -> None:
    head = bypassed.lines[0].partition("/info ")[0]
    health = wire.Health(time=wire.utc(1_770_000_000.0), uptime_s=5.0, detectable_w={"building": 43.4, "cellar": 9.0})
    told = replace(bypassed, lines=[*bypassed.lines, f"{head}/health {wire.encode(health).decode()}"])
    text = _page(told, None)
    assert "a steady loss of 43\u00a0W or more is found within a week" in text
    assert verify(text) == []
    assert "found within a week" not in _page(bypassed, None)


@pytest.mark.parametrize(
    ("drop", "said"),
    [
        ("/info ", "info message is missing"),
        ("/event/alert ", "no revision of alert"),
        (f"/evidence/{ALERT_ID}/", "ask the gateway for it"),
        (f"/evidence/{ALERT_ID}/2-", r"missing: \[2\]"),
    ],
)
def test_missing_messages_are_named(bypassed: Building, drop: str, said: str) -> None:
    with pytest.raises(CaseError, match=said):
        from_messages([line for line in bypassed.lines if drop not in line], ALERT_ID)


@pytest.mark.parametrize(
    ("spoiled", "said"),
    [
        ("/info ", r"info message cannot be read: .*Expected `datetime`"),
        ("/event/alert ", r"no revision of alert .*2 event/alert messages cannot be read, the first: "),
        (f"/evidence/{ALERT_ID}/", r"no evidence/.*messages cannot be read, the first: "),
        (f"/evidence/{ALERT_ID}/2-", r"missing: \[2\].*1 evidence message cannot be read: "),
    ],
)
def test_a_message_that_cannot_be_read_is_not_called_missing(bypassed: Building, spoiled: str, said: str) -> None:
    lines = [line.partition(" ")[0] + ' {"time": 7}' if spoiled in line else line for line in bypassed.lines]
    with pytest.raises(CaseError, match=said):
        from_messages(lines, ALERT_ID)
    empty = [line.partition(" ")[0] if spoiled in line else line for line in bypassed.lines]
    with pytest.raises(CaseError, match=r"cannot be read: |the first: "):
        from_messages(empty, ALERT_ID)


def test_rubbish_between_the_messages_changes_nothing(bypassed: Building) -> None:
    rubbish = ["", "no topic", "checkmeter/v1/a/b/c/event/alert {", "checkmeter/v1/a/b/c/info []"]
    clean = from_messages(bypassed.lines, ALERT_ID)
    assert from_messages([*rubbish, *bypassed.lines, *rubbish], ALERT_ID).revisions == clean.revisions


def _page(building: Building, key: Ed25519PrivateKey | None, language: str = "en") -> str:
    made = datetime(2026, 2, 9, tzinfo=UTC)
    facts = PageFacts(renderer=RENDERER, made=made, timezone="Europe/Berlin", language=language)
    files = write(from_messages(building.lines, ALERT_ID), facts)
    case, _ = read(files)
    files["result.json"] = result(case, analyse(case, facts.zone))
    return page(seal(files, key))


def test_the_seal_holds_and_a_changed_figure_breaks_it(bypassed: Building) -> None:
    key = Ed25519PrivateKey.generate()
    text = _page(bypassed, key)
    assert verify(text) == []
    assert verify(text, key.public_key()) == []
    assert verify(text, key_id(key.public_key())) == []
    (fault,) = verify(text, Ed25519PrivateKey.generate().public_key())
    assert "another key" in fault
    (fault,) = verify(text, "00" * 8)
    assert "another key" in fault
    start = text.index(";base64,") + 400
    forged = text[:start] + ("A" if text[start] != "A" else "B") + text[start + 1 :]
    assert any("readings.csv: its SHA-256" in f for f in verify(forged))
    digest = text.index('<pre id="manifest">') + len('<pre id="manifest">')
    other = text[:digest] + ("0" if text[digest] != "0" else "1") + text[digest + 1 :]
    assert "the signature is not that of the manifest" in verify(other)


def test_people_read_names_in_their_own_script_beside_the_ids(bypassed: Building) -> None:
    case = from_messages(bypassed.lines, ALERT_ID)
    assert case.info is not None
    called = {"flat-302": "302室", "flat-301": "<b>301</b>"}
    meters = [
        msgspec.structs.replace(m, name=called.get(m.id), service_point="SP 77" if m.id == "flat-302" else None)
        for m in case.info.meters
    ]
    info = msgspec.structs.replace(case.info, name="滨江12号", contact="Frau Wirth", meters=meters)
    facts = PageFacts(renderer=RENDERER, made=datetime(2026, 2, 9, tzinfo=UTC), timezone="UTC")
    text = page(seal(write(replace(case, info=info, meters=tuple(meters)), facts), None))
    assert "302室 (flat-302)</h1>" in text
    assert "滨江12号 · service point SP 77 · contact Frau Wirth" in text
    assert "<b>301" not in text


def test_an_unsigned_page_says_so(bypassed: Building) -> None:
    text = _page(bypassed, None)
    assert "not signed" in text
    assert verify(text) == []
    assert verify(text, "00" * 8) == ["the page is not signed"]
    assert verify("<html></html>") == ["this is no evidence page of checkmeter: it has no manifest"]


def test_the_page_needs_nothing_from_outside(bypassed: Building) -> None:
    text = _page(bypassed, None)
    assert text.count("<script") == 1  # the arithmetic again; the page says all it has to say without it
    assert "EMH00000" in text
    assert "2.1.7" in text
    assert "http" not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "thief" not in text


def test_the_verb_makes_signs_and_checks_a_page(bypassed: Building, tmp_path: Path) -> None:
    (tmp_path / "messages.txt").write_text("\n".join(bypassed.lines))
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    out = tmp_path / "case.html"
    words = [ALERT_ID, "-o", str(out), "--messages", str(tmp_path / "messages.txt"), "--key", str(tmp_path / "key.pem")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    assert CliRunner().invoke(command, ["--verify", str(out)]).exit_code == 0
    (tmp_path / "key.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    digits = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    for trusted in (str(tmp_path / "key.pub"), digits, key_id(key.public_key())):
        done = CliRunner().invoke(command, ["--verify", str(out), "--public-key", trusted])
        assert (done.exit_code, key_id(key.public_key()) in done.output) == (0, True), done.output
    done = CliRunner().invoke(command, ["--verify", str(out), "--public-key", "5f15"])
    assert done.exit_code == 2
    assert "keys show" in done.output
    out.write_text(out.read_text().replace("base64,", "base64,AAAA", 1))
    assert CliRunner().invoke(command, ["--verify", str(out)]).exit_code == 1


RECOMPUTE = Path(__file__).resolve().parents[4] / "docs" / "recompute.py"


def _visible_characters(text: str) -> list[int]:
    """Where the page's visible text stands: outside of markup, style and script."""
    hidden = [m.span() for m in re.finditer(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", text, re.DOTALL)]
    at, places = 0, []
    for start, end in hidden:
        places += [k for k in range(at, start) if text[k].isalnum()]
        at = end
    return places


def test_no_single_edit_of_what_a_reader_sees_goes_unnoticed(bypassed: Building) -> None:
    text = _page(bypassed, Ed25519PrivateKey.generate())
    edits = int(os.environ.get("CHECKMETER_EDITS", "60"))  # 1000 is the long form
    rng = random.Random(302)
    places = _visible_characters(text)
    assert len(places) > 3000
    refused = 0
    for place in rng.sample(places, edits):
        other = rng.choice([c for c in "0123456789abcdefxyz" if c != text[place]])
        refused += bool(verify(text[:place] + other + text[place + 1 :]))
    assert refused == edits


def _attribute_characters(text: str) -> list[int]:
    """Where the values of attributes stand: colours, coordinates, links, the attached files."""
    body = text.index("<body>")
    end = text.index("<script>", body)
    return [k for m in re.finditer(r'="([^"]*)"', text[body:end]) for k in range(body + m.start(1), body + m.end(1))]


def test_no_single_edit_of_an_attribute_goes_unnoticed(bypassed: Building) -> None:
    text = _page(bypassed, Ed25519PrivateKey.generate())
    edits = int(os.environ.get("CHECKMETER_EDITS", "60"))
    rng = random.Random(303)
    files = re.compile(r"base64,[^\"]*")
    spans = [m.span() for m in files.finditer(text)]
    places = _attribute_characters(text)
    drawn = [k for k in places if not any(a <= k < b for a, b in spans)]
    assert len(drawn) > 3000
    refused = 0
    # One half in what is drawn and linked, the other anywhere: the attached files are most of a page's octets.
    for place in [*rng.sample(drawn, edits // 2), *rng.sample(places, edits - edits // 2)]:
        other = rng.choice([c for c in "0123456789abcdefxyz" if c != text[place]])
        refused += bool(verify(text[:place] + other + text[place + 1 :]))
    assert refused == edits


def test_another_flat_cannot_be_put_into_a_sealed_page(bypassed: Building) -> None:
    text = _page(bypassed, Ed25519PrivateKey.generate())
    found = verify(text.replace("flat-302", "flat-301"))
    assert any("flat-301" in fault and "flat-302" in fault for fault in found)


@pytest.mark.parametrize(
    "extra",
    [
        "<h1>flat-301</h1></body>",
        "<style>.tile{display:none}</style></body>",
        "<script>document.title=1</script></body>",
    ],
)
def test_nothing_can_be_added_to_a_sealed_page(bypassed: Building, extra: str) -> None:
    text = _page(bypassed, None)
    assert verify(text.replace("</body>", extra)) != []


def test_a_page_of_another_renderer_is_not_called_right(bypassed: Building) -> None:
    facts = PageFacts(renderer=RENDERER + 1, made=datetime(2026, 2, 9, tzinfo=UTC), timezone="UTC")
    files = write(from_messages(bypassed.lines, ALERT_ID), facts)
    (fault,) = verify(page(seal(files, None)))
    assert "the release that made it" in fault


def test_anyone_can_recompute_the_page_with_one_file_of_plain_python(bypassed: Building, tmp_path: Path) -> None:
    (tmp_path / "case.html").write_text(_page(bypassed, None), newline="")
    assert len(RECOMPUTE.read_text().splitlines()) <= 250
    words = [sys.executable, "-I", "-S", str(RECOMPUTE), str(tmp_path / "case.html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b(\d+) figures compared, 0 differ", done.stdout)
    # A sealed result that the readings do not bear out is found, whoever sealed it.
    sealed = open_page(_page(bypassed, None))
    assert sealed is not None
    wrong = json.loads(sealed.files["result.json"])
    wrong["missing_w"] += 1e-5
    files = sealed.files | {"result.json": json.dumps(wrong).encode()}
    (tmp_path / "case.html").write_text(page(seal(files, None)), newline="")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "missing_w: sealed" in done.stdout
    assert any("result.json" in fault for fault in verify((tmp_path / "case.html").read_text()))


@pytest.mark.chromium
def test_the_page_recomputes_itself_in_a_browser(bypassed: Building, tmp_path: Path) -> None:
    (tmp_path / "case.html").write_text(_page(bypassed, None))
    browser = shutil.which("chromium")
    assert browser is not None
    words = [browser, *BROWSER_OPTIONS, f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    done = subprocess.run([*words, (tmp_path / "case.html").as_uri()], capture_output=True, text=True, timeout=100)
    assert re.search(r'id="recomputed"[^>]*>all \d+ figures agree', done.stdout), done.stdout[-1500:][:600]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "checkmeter alerts"),
        ([ALERT_ID, "-o", "x.html"], "--site"),
        ([ALERT_ID, "-o", "x.html", "--messages", __file__, "--timezone", "Mars/Base"], "no time zone"),
        ([ALERT_ID, "-o", "x.html", "--messages", __file__], "no revision of alert"),
    ],
)
def test_wrong_use_is_one_line_that_says_what_to_do(words: list[str], said: str) -> None:
    done = CliRunner().invoke(command, words)
    assert done.exit_code != 0
    assert said in done.output
    assert "Traceback" not in done.output


def test_the_page_from_the_utilitys_store_is_that_from_the_messages(bypassed: Building, tmp_path: Path) -> None:
    """Also where two reports of the case were asked for, each with chunks of another count."""
    dsn = f"sqlite:///{tmp_path / 'fleet.sqlite'}"
    now_s = time.time()
    reader = Reader(lambda: now_s)
    lines = [re.sub(r'"id":"(id-\d)"', lambda m: f'"id":"{derived_uuid(m[1])}"', line) for line in bypassed.lines]
    first = [line for line in lines if not re.search(r"/evidence/[^ ]*/[34]-4 ", line)]
    renumbered = [re.sub(r'"of":4', '"of":2', re.sub(r"/([12])-4 ", r"/\1-2 ", line)) for line in first]
    with open_store(dsn, make=True) as store:
        store.migrate(now_s)
        for line in [*renumbered, *lines]:
            topic, _, body = line.partition(" ")
            store.apply([reader.read(Publish(topic.encode(), 1, body.encode(), False))])
        assert store.rows("SELECT topic, reason FROM dead_letter") == []
        assert store.rows("SELECT COUNT(*) FROM evidence_chunk") == [(4,)]
    out = tmp_path / "case.html"
    done = CliRunner().invoke(command, [ALERT_ID, "-o", str(out), "--store", dsn])
    assert done.exit_code == 0, done.output
    (tmp_path / "messages.txt").write_text("\n".join(lines))
    other = tmp_path / "other.html"
    words = [ALERT_ID, "-o", str(other), "--messages", str(tmp_path / "messages.txt")]
    assert CliRunner().invoke(command, words).exit_code == 0
    here, there = (open_page(path.read_text()) for path in (out, other))
    assert here is not None
    assert there is not None
    assert {n: o for n, o in here.files.items() if n != "page.json"} == {
        n: o for n, o in there.files.items() if n != "page.json"
    }, "the same case but for the moment at which the page was made"
    missing = CliRunner().invoke(command, ["nobody", "-o", str(out), "--store", dsn])
    assert missing.exit_code == 1
    assert "no alert nobody" in missing.output


def _chromium(*words: Any) -> None:
    browser = shutil.which("chromium")
    assert browser is not None
    done = subprocess.run([browser, *BROWSER_OPTIONS, *map(str, words)], capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.chromium
@pytest.mark.parametrize(("width", "language"), [(390, "en"), (1100, "en"), (390, "de"), (390, "zh")])
def test_a_browser_shows_it_without_scrolling_sideways(
    bypassed: Building, tmp_path: Path, width: int, language: str
) -> None:
    text = _page(bypassed, None, language)
    # The page reports its own layout in its title, which the dumped document then shows.
    probe = "<script>addEventListener('load',()=>document.title='W'+document.documentElement.scrollWidth)</script>"
    (tmp_path / "case.html").write_text(text.replace("</body>", probe + "</body>"))
    browser = shutil.which("chromium")
    assert browser is not None
    # A phone's width is asked of a frame: a headless window is never narrower than 500 px.
    frame = (
        f'<iframe id="f" src="case.html" style="width:{width}px;height:900px;border:0"></iframe>'
        "<script>onload=()=>setTimeout(()=>{let d=document.getElementById('f').contentDocument;"
        "let seen=[...d.querySelectorAll('svg')].filter(s=>s.getBoundingClientRect().width>0);"
        "let px=seen.map(s=>s.getBoundingClientRect().width/s.viewBox.baseVal.width*+s.getAttribute('font-size'));"
        "let least=Math.min(...px).toFixed(1);"
        "document.title='W'+d.documentElement.scrollWidth+' S'+seen.length+' T'+least},300)</script>"
    )
    (tmp_path / "frame.html").write_text(f"<!doctype html><title>wait</title>{frame}")
    words = [
        browser,
        *BROWSER_OPTIONS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--allow-file-access-from-files",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "frame.html").as_uri(),
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    title = done.stdout.split("<title>")[1].split("</title>")[0]
    shown, charts, letters = title.split()
    assert int(shown[1:]) <= width
    assert charts == "S4"  # of the two drawings of each, the one that fits
    assert float(letters[1:]) >= 11.0


@pytest.mark.chromium
def test_screenshot_and_print(bypassed: Building, tmp_path: Path) -> None:
    (tmp_path / "case.html").write_text(_page(bypassed, Ed25519PrivateKey.generate()))
    uri, profile = (tmp_path / "case.html").as_uri(), f"--user-data-dir={tmp_path / 'profile'}"
    _chromium(profile, "--window-size=1100,3600", f"--screenshot={tmp_path / 'case.png'}", uri)
    _chromium(profile, f"--print-to-pdf={tmp_path / 'case.pdf'}", uri)
    assert (tmp_path / "case.png").read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "case.png").stat().st_size > 50_000
    assert (tmp_path / "case.pdf").read_bytes()[:5] == b"%PDF-"
    # The neighbours' readings are in the page, for whoever does the sums again; paper does not carry them along.
    assert b"base64," not in (tmp_path / "case.pdf").read_bytes()


def _files(building: Building) -> dict[str, bytes]:
    sealed = open_page(_page(building, None))
    assert sealed is not None
    return sealed.files


def test_a_meter_without_figures_makes_no_page(bypassed: Building) -> None:
    """Its energy would look missing, and somebody else would be accused of it."""
    lines = []
    for line in bypassed.lines:
        topic, _, body = line.partition(" ")
        if "/evidence/" in topic:
            chunk = json.loads(body)
            chunk["series"] = [s for s in chunk["series"] if s["meter"] != "flat-401"]
            line = f"{topic} {json.dumps(chunk)}"
        lines.append(line)
    with pytest.raises(CaseError, match="without flat-401"):
        from_messages(lines, ALERT_ID)


@pytest.mark.parametrize(
    ("name", "octets"),
    [
        ("readings.csv", b""),
        ("readings.csv", b"\xff\xfe"),
        ("readings.csv", b"time,main,flat-101\n2026-01-01T00:00:00Z,1e308,1\n2026-01-01T00:15:00Z,1e308,1\n"),
        ("page.json", b'{"renderer":5,"made":"9999-12-31T23:59:59Z","timezone":"Europe/Berlin"}'),
        ("page.json", b'{"renderer":5,"made":"2026-02-09T00:00:00Z","timezone":"Europe"}'),
        ("alert.json", b""),
        ("alert.json", b"[" * 5000),
    ],
)
def test_a_page_of_rubbish_is_refused_in_words(bypassed: Building, name: str, octets: bytes) -> None:
    files = _files(bypassed) | {name: octets}
    text = _page(bypassed, None)
    for name_, old in _files(bypassed).items():
        new = files[name_]
        text = text.replace(base64.b64encode(old).decode(), base64.b64encode(new).decode())
        text = text.replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())
    found = verify(text)
    assert found
    assert all(isinstance(fault, str) for fault in found)


@pytest.mark.parametrize("name", ["=1+1", "@sum", "-flat", "a,b", "flat\\t1"])
def test_an_id_that_a_spreadsheet_would_calculate_makes_no_page(bypassed: Building, name: str) -> None:
    lines = [line.replace("flat-301", name) for line in bypassed.lines]
    facts = PageFacts(renderer=RENDERER, made=datetime(2026, 2, 9, tzinfo=UTC), timezone="UTC")
    with pytest.raises(CaseError, match="is no id of a meter"):
        write(from_messages(lines, ALERT_ID), facts)


def test_infinity_is_no_figure_that_agrees(bypassed: Building, tmp_path: Path) -> None:
    files = _files(bypassed)
    wrong = json.loads(files["result.json"])
    wrong["missing_w"] = math.inf
    (tmp_path / "case.html").write_text(
        page(seal(files | {"result.json": json.dumps(wrong).encode()}, None)), newline=""
    )
    words = [sys.executable, "-I", "-S", str(RECOMPUTE), str(tmp_path / "case.html")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "missing_w: sealed inf" in done.stdout


def test_a_page_whose_two_losses_cannot_both_be_right_says_so(bypassed: Building) -> None:
    case = from_messages(bypassed.lines, ALERT_ID)
    facts = PageFacts(renderer=RENDERER, made=datetime(2026, 2, 9, tzinfo=UTC), timezone="UTC")
    last = case.revisions[-1]
    for interval, said in (((bypassed.missing_w - 20, bypassed.missing_w + 20), False), ((8500.0, 9500.0), True)):
        data = msgspec.structs.replace(last.data, loss_w=sum(interval) / 2, loss_w_interval=interval)
        revisions = (*case.revisions[:-1], msgspec.structs.replace(last, data=data))
        assert ("do not agree" in page(seal(write(replace(case, revisions=revisions), facts), None))) is said


def test_the_private_half_of_a_key_is_not_taken_for_the_public_one(bypassed: Building, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "case.html").write_text(_page(bypassed, key), newline="")
    (tmp_path / "ops.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    words = ["--verify", str(tmp_path / "case.html"), "--public-key", str(tmp_path / "ops.key")]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 2
    assert "private half" in done.output
