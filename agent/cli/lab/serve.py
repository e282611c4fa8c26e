"""`checkmeter utility serve`: the fleet as a web page. Here it meets the evidence page, which is another room's."""

from __future__ import annotations

import ipaddress
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click

from agent.utility.sql.store import Store, open_store


@click.command()
@click.option("--store", "dsn", required=True, envvar="CHECKMETER_STORE", metavar="DSN", help="As for the other verbs.")
@click.option("--listen", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any that is free.")
@click.option("--host-name", "names", multiple=True, help="A name under which browsers ask; may be repeated.")
@click.option("--trusted-proxy", "proxies", multiple=True, metavar="ADDRESS", help="Signs people in; may be repeated.")
@click.option(
    "--user-header", default="X-Forwarded-User", show_default=True, help="In which the proxy names the person."
)
@click.option("--groups-header", default="X-Forwarded-Groups", show_default=True, help="And the person's groups.")
@click.option("--oidc-issuer", metavar="URL", help="OpenID Connect provider that signs people in, instead of a proxy.")
@click.option("--oidc-client", metavar="ID", help="What this page is called there.")
@click.option(
    "--oidc-secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The client's secret; without one it is a public client.",
)
@click.option("--oidc-ca", type=click.Path(exists=True, dir_okay=False), help="Its certificate authority (PEM).")
@click.option("--oidc-name-claim", default="preferred_username", show_default=True, help="The person's name.")
@click.option("--oidc-roles-claim", default="groups", show_default=True, help="Their groups, as realm_access.roles.")
@click.option("--oidc-scope", default="openid profile email groups", show_default=True, help="What is asked for.")
@click.option("--public-url", metavar="URL", help="The page's address for browsers [default: where it listens].")
@click.option("--session-hours", type=click.FloatRange(0.1, 720), default=8.0, show_default=True, help="Of a sign-in.")
@click.option(
    "--inspectors", "inspectors", multiple=True, metavar="GROUP", help="May record outcomes; may be repeated."
)
@click.option("--operators", "operators", multiple=True, metavar="GROUP", help="May read the audit log, too.")
@click.option("--price", type=click.FloatRange(0.0, min_open=True), help="Money for a kWh.")
@click.option("--currency", default="", help="Of the price, as EUR.")
@click.option("--timezone", default="UTC", show_default=True, help="In which times are shown.")
@click.option("--promised-false-alarms", type=click.FloatRange(0.0, min_open=True), help="A building and year [0.1].")
@click.option("--refresh", type=click.IntRange(0, 3600), default=60, show_default=True, help="Seconds; 0: never.")
@click.option("--secure", is_flag=True, help="Browsers come through HTTPS: cookies and headers say so.")
def command(
    dsn: str,
    listen: str,
    port: int,
    names: tuple[str, ...],
    proxies: tuple[str, ...],
    user_header: str,
    groups_header: str,
    oidc_issuer: str | None,
    oidc_client: str | None,
    oidc_secret_file: Path | None,
    oidc_ca: str | None,
    oidc_name_claim: str,
    oidc_roles_claim: str,
    oidc_scope: str,
    public_url: str | None,
    session_hours: float,
    inspectors: tuple[str, ...],
    operators: tuple[str, ...],
    price: float | None,
    currency: str,
    timezone: str,
    promised_false_alarms: float | None,
    refresh: int,
    secure: bool,
) -> None:
    """Show the fleet to a browser. Read-only, unless people are signed in and a group of theirs says more.

    An OpenID Connect provider signs them in (--oidc-issuer), or a reverse proxy (--trusted-proxy). Without either it
    listens on this machine only.
    """
    try:
        import uvicorn

        from agent.offline.case.page import script_source
        from agent.utility.web.app import application
        from agent.utility.web.settings import Settings
        from agent.utility.web.signin.people import Proxy, Role
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'checkmeter[web]'") from None
    try:
        loopback = ipaddress.ip_address(listen).is_loopback
        zone = ZoneInfo(timezone)
        for address in proxies:
            ipaddress.ip_network(address)
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise click.UsageError(str(error)) from None
    if oidc_issuer and proxies:
        raise click.UsageError("--oidc-issuer or --trusted-proxy: one of them says who people are")
    if not loopback and not proxies and not oidc_issuer:
        raise click.UsageError(
            f"{listen} is not this machine alone: name who signs people in (--oidc-issuer or --trusted-proxy)"
        )
    if (inspectors or operators) and not proxies and not oidc_issuer:
        raise click.UsageError("roles need somebody who says who people are: --oidc-issuer or --trusted-proxy")
    roles = dict.fromkeys(inspectors, Role.INSPECTOR) | dict.fromkeys(operators, Role.OPERATOR)
    proxy = Proxy(proxies, user_header.lower(), groups_header.lower(), roles) if proxies else None
    oidc = None
    if oidc_issuer:
        if not oidc_client or not public_url:
            raise click.UsageError("--oidc-issuer needs --oidc-client ID and --public-url URL")
        secret = oidc_secret_file.read_text().strip() if oidc_secret_file else None
        oidc = _oidc(
            issuer=oidc_issuer, client_id=oidc_client, public_url=public_url, secret=secret, roles=roles,
            name_claim=oidc_name_claim, roles_claim=oidc_roles_claim, scope=oidc_scope, ca_file=oidc_ca,
        )  # fmt: skip
        names = (*names, urlsplit(public_url).hostname or "")
        secure = secure or public_url.startswith("https://")
    hosts = frozenset({"localhost", "127.0.0.1", "::1", listen, *(name.lower() for name in names)})
    with open_store(dsn) as store:
        store.check_version()
    settings = Settings(
        dsn, hosts, proxy, oidc, price=price, currency=currency, zone=zone, refresh_s=refresh, secure=secure,
        session_hours=session_hours, evidence=evidence, evidence_script=script_source(),
    )  # fmt: skip
    if promised_false_alarms is not None:
        settings = settings.promising(promised_false_alarms)
    config = uvicorn.Config(
        application(settings, warm=True), host=listen, port=port, proxy_headers=False, server_header=False,
        date_header=True, log_level="warning", limit_concurrency=200, timeout_keep_alive=15,
        h11_max_incomplete_event_size=16 * 1024,
        ws="none", lifespan="off", http="h11",
    )  # fmt: skip
    server = uvicorn.Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        # Until the server listens to signals itself, and once more when it has ended in order and raises its own again.
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    with config.bind_socket() as bound:
        bound.listen(config.backlog)  # whoever reads the address may connect at once
        click.echo(f"http://{'[' + listen + ']' if ':' in listen else listen}:{bound.getsockname()[1]}/")
        server.run(sockets=[bound])


def _oidc(**values: Any) -> Any:
    """The provider's settings, checked.

    Raises:
        click.ClickException: the libraries are missing, an address is none, or the key is too short.
    """
    key = os.environ.get("CHECKMETER_CSRF_KEY", "")
    if key and len(key) < 32:
        raise click.ClickException("CHECKMETER_CSRF_KEY seals the sessions: give it 32 characters of chance at least")
    try:
        from agent.utility.web.signin.oidc import Oidc, Provider, ProviderAway
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'checkmeter[web]'") from None
    try:
        oidc = Oidc(**values)
        Provider(oidc, b"").about()
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    except ProviderAway as error:  # it may come later than we do
        click.echo(f"careful, nobody can sign in now: {error}", err=True)
    return oidc


def evidence(store: Store, gateway: str, alert_id: str) -> str:
    """The evidence page of a case from the fleet's store, not signed.

    Raises:
        ValueError: what has come of it is not enough; the text says what is missing.
    """
    from agent.cli.lab.report import made_page
    from agent.offline.case.case import CaseError, from_messages
    from agent.utility.fleet.case_file import messages

    try:
        return made_page(from_messages(messages(store, alert_id, gateway), alert_id), "UTC", None)[0]
    except CaseError as error:
        raise ValueError(str(error)) from error
