"""`checkmeter report`: the evidence page of one alert, from the gateway's store or from recorded messages."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.keys.signing import KeyRing, Unauthorised, check_file, key_id, read_public, sign_file
from agent.offline.case.analysis import Analysis, analyse
from agent.offline.case.case import Case, CaseError, from_messages
from agent.offline.case.files import PageFacts, read, result, write
from agent.offline.case.page import RENDERER, page
from agent.offline.case.print import CannotPrint, print_pdf
from agent.offline.case.seal import Sealed, id_of_hex, open_page, seal
from agent.offline.case.verify import PAGE_MAX_OCTETS, verify
from agent.offline.case.words import LANGUAGES
from agent.process.exit_codes import INPUT_OUTPUT, NEGATIVE, UNAVAILABLE
from agent.wire.codec import encode


@click.command("report")
@click.argument("alert_id", required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where the page goes.")
@click.option("--site", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Site file of this gateway.")
@click.option(
    "--messages",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Recorded MQTT messages instead of the store: lines `topic body`, as mosquitto_sub -v prints them.",
)
@click.option("--store", "dsn", metavar="DSN", help="The utility's store instead: as for checkmeter utility.")
@click.option("--gateway", metavar="TENANT/SITE/GATEWAY", help="With --store, if several have an alert of this id.")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Ed25519 private key (PEM) to sign with.",
)
@click.option("--timezone", default="UTC", show_default=True, help="Times are shown in this zone.")
@click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", show_default=True, help="Of the page.")
@click.option("--pdf", is_flag=True, help="Print the page to a PDF beside it (needs Chromium).")
@click.option(
    "--verify",
    "to_verify",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check a page instead: its signature, its files, and all that it shows; or a signed PDF.",
)
@click.option(
    "--public-key",
    help="With --verify: who must have signed it: a .pub file, its 64 hexadecimal digits, or the key's id of 16.",
)
def command(
    alert_id: str | None,
    output: Path | None,
    site: Path | None,
    messages: Path | None,
    dsn: str | None,
    gateway: str | None,
    key: Path | None,
    timezone: str,
    language: str,
    pdf: bool,
    to_verify: Path | None,
    public_key: str | None,
) -> None:
    """Make the evidence page of alert ALERT_ID, or check one with --verify."""
    if to_verify is not None:
        _verify(to_verify, public_key)
        return
    if alert_id is None or output is None:
        raise click.UsageError("give the alert's id and -o PAGE.html; `checkmeter alerts` lists the ids")
    if sum(source is not None for source in (site, messages, dsn)) != 1:
        raise click.UsageError(
            "give either --site SITE.toml (a gateway), --messages FILE (a workstation) or --store DSN (the utility)"
        )
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise click.UsageError(f"{timezone!r} is no time zone; expected a name like Europe/Berlin") from None
    try:
        case = _load(alert_id, site, messages) if dsn is None else _from_fleet(dsn, alert_id, gateway)
        private = None if key is None else _private_key(key)
        text, analysis, sealed = made_page(case, timezone, private, language)
    except CaseError as error:
        raise click.ClickException(str(error)) from None
    output.write_text(text, encoding="utf-8")
    click.echo(
        f"{output}: {analysis.missing_w:,.0f} W missing, {len(sealed.files)} files sealed"
        f"{'' if sealed.signature else ', not signed (no --key)'}"
    )
    if pdf:
        _print(output, private)


def made_page(
    case: Case, timezone: str, key: Ed25519PrivateKey | None, language: str = "en"
) -> tuple[str, Analysis, Sealed]:
    """The page of a case, sealed now; with what it says in figures, and the seal.

    Raises:
        CaseError: the case does not hold enough.
    """
    made = datetime.now(UTC).replace(microsecond=0)
    files = write(case, PageFacts(renderer=RENDERER, made=made, timezone=timezone, language=language))
    shown, facts = read(files)  # what is shown is what is written, to the last digit
    analysis = analyse(shown, facts.zone)
    files["result.json"] = result(shown, analysis)
    sealed = seal(files, key)
    return page(sealed), analysis, sealed


def _load(alert_id: str, site: Path | None, messages: Path | None) -> Case:
    if messages is not None:
        with messages.open(encoding="utf-8", errors="replace") as lines:
            return from_messages(lines, alert_id)
    from agent.offline.case.from_store import from_store
    from agent.offline.replay.standing import detectable_w
    from agent.site.load import load

    assert site is not None
    case = from_store(site, alert_id)
    return replace(case, detectable_w=detectable_w(load(site)).get(case.alert.data.zone or ""))


def _from_fleet(dsn: str, alert_id: str, gateway: str | None) -> Case:
    from agent.utility.fleet.case_file import full_id, messages
    from agent.utility.sql.server import StoreError, StoreUnavailable
    from agent.utility.sql.store import open_store

    code = INPUT_OUTPUT
    try:
        with open_store(dsn) as store:
            store.check_version()
            code = NEGATIVE  # a store that answers: what it does not know is the verb's own no
            whole_id = full_id(store, alert_id, gateway)
            return from_messages(messages(store, whole_id, gateway), whole_id)
    except StoreError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(UNAVAILABLE if isinstance(error, StoreUnavailable) else code) from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise click.ClickException(f"{path}: not a private key in PEM form without a password: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise click.ClickException(f"{path}: expected an Ed25519 key; `checkmeter keys` makes one")
    return key


def _verify(path: Path, public_key: str | None) -> None:
    trusted = None if public_key is None else _trusted(public_key)
    if path.suffix == ".pdf":
        _verify_pdf(path, trusted)
        return
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        text = file.read(PAGE_MAX_OCTETS + 1)
    faults = verify(text, trusted)
    for fault in faults:
        click.echo(f"{path}: {fault}", err=True)
    if faults:
        raise SystemExit(1)
    sealed = open_page(text)
    assert sealed is not None
    click.echo(f"{path}: all that it shows is what was sealed (digest {sealed.digest})")
    if sealed.public_key is None:
        click.echo("It is not signed: this says that nobody changed it by accident, not who made it.")
    elif trusted is None:
        click.echo(
            f"It is signed by key {id_of_hex(sealed.public_key)}; "
            "give --public-key to be sure that it is the key you trust."
        )
    else:
        click.echo(f"It is signed by {public_key} (key {id_of_hex(sealed.public_key)}).")


def _trusted(text: str) -> Ed25519PublicKey | str:
    """The key that --public-key means: a file, 64 hexadecimal digits, or an id of 16."""
    if re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
    if re.fullmatch(r"[0-9A-Fa-f]{16}", text):
        return text.lower()
    try:
        if "PRIVATE KEY" in Path(text).read_text(encoding="ascii", errors="replace"):
            raise click.BadParameter(f"{text} is the private half of a key: keep it, and give the .pub file beside it")
        return read_public(Path(text))
    except OSError as error:
        raise click.BadParameter(
            f"{text!r} is neither a readable .pub file ({error.strerror}), nor 64 hexadecimal digits, "
            "nor a key id of 16; `checkmeter keys show FILE.pub` prints the id"
        ) from None
    except ValueError as error:
        raise click.BadParameter(f"{text}: {error}; expected an Ed25519 public key in PEM form") from None


def _print(output: Path, key: Ed25519PrivateKey | None) -> None:
    try:
        target = print_pdf(output)
    except CannotPrint as error:
        raise click.ClickException(f"{error}. The page itself is written") from None
    click.echo(f"{target}{'' if key is not None else ', not signed (no --key)'}")
    if key is not None:
        signature = target.with_name(target.name + ".sig")
        signature.write_bytes(encode(sign_file(key, target, "evidence")) + b"\n")
        click.echo(f"{signature}: whoever checks the PDF needs this file, too")


def _verify_pdf(path: Path, trusted: Ed25519PublicKey | str | None) -> None:
    """A PDF cannot be rendered again to the octet: its signature beside it says that it is as it was made."""
    signature = path.with_name(path.name + ".sig")
    if not signature.exists():
        raise click.ClickException(f"{path} has no {signature.name} beside it: verify the page it was printed from")
    if not isinstance(trusted, Ed25519PublicKey):
        raise click.UsageError("a PDF is checked with --public-key KEY.pub")
    try:
        check_file(KeyRing([trusted]), path, signature.read_bytes(), "evidence")
    except (OSError, ValueError, Unauthorised) as error:
        raise click.ClickException(f"{path}: {error}") from None
    click.echo(f"{path}: every octet is as it was signed by key {key_id(trusted)}")
