"""Who may look at the inspector without an `allow`, and with one."""

from __future__ import annotations

from typing import Any

import pytest

from unitwork._inspector.access import is_allowed, is_local


def scope(client: str | None = "127.0.0.1", **headers: str) -> dict[str, Any]:
    given = {"host": "localhost:8000"} | headers
    return {
        "type": "http",
        "client": None if client is None else (client, 50_000),
        "headers": [
            (key.replace("_", "-").encode(), value.encode())
            for key, value in given.items()
        ],
    }


@pytest.mark.parametrize(
    "client", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"]
)
@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "[::1]:8000", "a.localhost"]
)
def test_a_client_on_the_same_machine_is_local(client: str, host: str) -> None:
    assert is_local(scope(client, host=host))


@pytest.mark.parametrize("client", ["10.0.0.7", "testclient", "", None, "127.0.0.1.a"])
def test_any_other_client_is_not(client: str | None) -> None:
    assert not is_local(scope(client))


@pytest.mark.parametrize(
    "header",
    ["forwarded", "via", "x_forwarded_for", "x_forwarded_proto", "x_real_ip"],
)
def test_a_client_behind_a_proxy_on_the_same_machine_is_not(header: str) -> None:
    assert not is_local(scope(**{header: "127.0.0.1"}))


def test_a_proxy_without_headers_of_its_own_is_not() -> None:
    assert not is_local(scope() | {"http_version": "1.0"})


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "["])
def test_a_page_whose_name_leads_to_this_machine_is_not(host: str) -> None:
    assert not is_local(scope(host=host))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_script_of_another_site_is_refused_whatever_allow_says(
    site: str,
) -> None:
    given = scope(sec_fetch_site=site, sec_fetch_mode="no-cors")

    assert not await is_allowed(given, lambda request: True)


async def test_a_link_on_another_site_may_be_followed() -> None:
    given = scope(sec_fetch_site="cross-site", sec_fetch_mode="navigate")

    assert await is_allowed(given, None)


@pytest.mark.parametrize("answer", [True, False])
async def test_allow_decides_for_any_client(answer: bool) -> None:
    assert await is_allowed(scope("10.0.0.7"), lambda request: answer) is answer


async def test_allow_may_be_a_coroutine_function() -> None:
    async def allow(request: Any) -> bool:
        return request.headers["x-token"] == "right"

    assert await is_allowed(scope("10.0.0.7", x_token="right"), allow)
    assert not await is_allowed(scope("10.0.0.7", x_token="wrong"), allow)


@pytest.mark.parametrize("answer", [None, 1, "yes"])
async def test_an_allow_that_returns_no_bool_allows_nothing(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert not await is_allowed(scope(), lambda request: answer)
    assert "return a bool" in caplog.text


async def test_an_allow_that_raises_allows_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert not await is_allowed(scope(), lambda request: request.headers["absent"])
    assert "`allow` of the inspector has failed" in caplog.text
