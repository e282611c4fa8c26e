"""The real verb in a real Chromium: every page, a phone's and a desk's width, both schemes, judged by axe-core."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agent.utility.conftest import free_port

pytestmark = [pytest.mark.chromium, pytest.mark.xdist_group("chromium"), pytest.mark.timeout(300)]
GRAVE = {"serious", "critical"}


def addresses(full: Any) -> list[str]:
    place = full.building
    return [
        "/", "/cases", "/cases?state=all", f"/case/{full.cases[0]}", f"/case/{full.cases[0]}/evidence",
        f"/building/{place}", "/gateways", f"/gateway/{place}", "/forecast?by=feeder", "/precision",
        "/exports", "/search?q=site", "/audit",
        "/nowhere",
    ]  # fmt: skip


OPERATOR = {"X-Forwarded-User": "olga", "X-Forwarded-Groups": "it"}  # who sees every page, and the forms on them


@pytest.mark.parametrize(("scheme", "language"), [("light", "en"), ("dark", "zh")])
@pytest.mark.parametrize("width", [390, 1400])
def test_every_page(full: Any, serve: Any, browser: Any, axe: str, scheme: str, language: str, width: int) -> None:
    address = serve(full.dsn, "--price", "0.3", "--trusted-proxy", "127.0.0.1", "--operators", "it")
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, locale=language, extra_http_headers=OPERATOR
    )
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    for path in addresses(full):
        answer = page.goto(address + path)
        assert answer.status == (404 if path == "/nowhere" else 200)
        if not path.endswith("/evidence"):  # a file of its own, in English
            assert page.locator("html").get_attribute("lang") == language
        else:
            again = page.locator("#recomputed").text_content()
            assert "off" not in again, "its own arithmetic runs under our policy"
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} scrolls sideways: {wide} px"
        page.evaluate(axe)
        result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        grave = [
            (found["id"], [node["target"] for node in found["nodes"]][:3])
            for found in result["violations"]
            if found["impact"] in GRAVE
        ]
        assert grave == [], f"{path} at {width} px, {scheme}"
    said = [text for text in said if "404" not in text]
    assert said == []
    context.close()


@pytest.mark.parametrize("ends", [False, True])
def test_signing_in_with_a_provider_and_out_again(
    full: Any, serve: Any, browser: Any, tmp_path: Path, ends: bool
) -> None:
    """With `ends` the provider says where its own session ends: the browser goes there, too, and comes back."""
    pytest.importorskip("authlib", reason="the extra `web` is not installed whole")
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    command = [sys.executable, str(Path(__file__).parent / "provider.py"), "fleet", "secret", f"{here}/login/back"]
    provider = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert provider.stdout is not None
        issuer = provider.stdout.readline().strip()
        context = browser.new_context()
        (tmp_path / "secret").write_text("secret\n")
        serve(
            full.dsn, "--port", str(port), "--public-url", here, "--oidc-issuer", issuer, "--oidc-client", "fleet",
            "--oidc-secret-file", str(tmp_path / "secret"), "--inspectors", "field-service",
        )  # fmt: skip
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        told = {"claims": {"preferred_username": "ana", "groups": ["field-service"]}, "ends": ends}
        context.request.post(f"{issuer}/next", data=json.dumps(told))
        page.goto(f"{here}/case/{full.cases[0]}?lang=en")
        assert page.url == f"{here}/case/{full.cases[0]}?lang=en", "after the way over the provider, where one wanted"
        assert page.locator("footer", has_text="ana").count() == 1
        assert page.locator("form[action$='/outcome']").count() == 1
        page.click("text=Sign out")
        page.wait_for_url(f"{here}/signed-out" + ("?state=out" if ends else ""))
        left = page.locator("main", has_text="and the one at the service" if ends else "may still be signed in")
        assert left.count() == 1
        context.request.post(f"{issuer}/next", data=json.dumps({"fault": "denied"}))
        page.click("main >> text=Sign in")
        assert page.locator("main", has_text="access_denied").count() == 1
        assert [text for text in said if "403" not in text] == []
        context.close()
    finally:
        provider.kill()
        provider.wait(10)
        if provider.stdout is not None:
            provider.stdout.close()


def test_by_keyboard_and_without_script(full: Any, serve: Any, browser: Any) -> None:
    address = serve(full.dsn)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + "/")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the content
    assert page.url.endswith("#main")
    page.goto(address + "/cases")
    page.select_option("select[name=state]", "all")
    page.click("main button")
    assert "state=all" in page.url
    page.click("tbody th a")
    assert "/case/" in page.url
    page.click("text=中文")
    assert page.locator("html").get_attribute("lang") == "zh"
    page.goto(address + "/")
    assert page.locator("html").get_attribute("lang") == "zh", "the language stays"
    context.close()


def test_the_page_refreshes_itself_and_not_under_ones_hands(full: Any, serve: Any, browser: Any) -> None:
    address = serve(full.dsn, "--refresh", "1")
    page = browser.new_page()
    page.goto(address + "/cases")
    page.evaluate("document.querySelector('main h1').textContent = 'old'")
    page.locator("main h1", has_text="Cases").wait_for(timeout=20_000)
    page.focus("main input[name=site]")
    page.evaluate("document.querySelector('main h1').textContent = 'old'")
    page.wait_for_timeout(3000)
    assert page.locator("main h1").text_content() == "old"
    page.close()
