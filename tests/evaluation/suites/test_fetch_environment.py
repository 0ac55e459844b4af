"""HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and the proxies reach the wire: one process each, read at import."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from fake_hub import FakeRepo


@pytest.fixture
def repo(fake_hub) -> FakeRepo:
    fake_hub.repos["owner/sets"] = FakeRepo({"a/x.parquet": b"content", "a/y.csv": b"plain"}, token="secret")
    return fake_hub.repos["owner/sets"]


def test_token_and_endpoint(repo, fake_hub, in_a_process, tmp_path):
    output, errors = in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url, HF_TOKEN="secret").communicate(timeout=60)
    assert "fetched 1 data set" in output, errors
    assert (tmp_path / "a" / "x.parquet").read_bytes() == b"content"
    at_hub = [headers for _, path, headers in fake_hub.requests if "/datasets/" in path]
    at_cdn = [headers for _, path, headers in fake_hub.requests if path.startswith("/cdn/")]
    assert all(headers["authorization"] == "Bearer secret" for headers in at_hub)
    assert at_cdn and all("authorization" not in headers for headers in at_cdn), "the token stays with the hub"

    output, errors = in_a_process(tmp_path / "new", HF_ENDPOINT=fake_hub.url).communicate(timeout=60)
    assert "fetched 0 data sets" in output and "HF_TOKEN" in output


def test_http_goes_through_the_proxy(repo, fake_hub, in_a_process, tmp_path):
    """The host has no address, so only the proxy can reach it; our hub plays the proxy."""
    process = in_a_process(tmp_path, HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=fake_hub.url, HF_TOKEN="secret")
    output, errors = process.communicate(timeout=60)
    assert "fetched 1 data set" in output, errors
    assert (tmp_path / "a" / "y.csv").read_bytes() == b"plain"
    assert {headers["host"] for _, path, headers in fake_hub.requests if "/api/" in path} == {"hub.invalid"}


def test_https_asks_the_proxy_for_a_tunnel(in_a_process, tmp_path):
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def refuse() -> None:
            with suppress(OSError):  # the socket is closed when the test ends
                while True:
                    connection, _ = proxy.accept()
                    with connection:
                        asked.append(connection.recv(4096).decode().partition(" HTTP")[0])
                        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=refuse, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        process = in_a_process(tmp_path, HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=address)
        _, errors = process.communicate(timeout=60)
    assert asked and set(asked) == {"CONNECT hub.invalid:443"}
    assert "error: https://hub.invalid cannot be reached" in errors and "HTTPS_PROXY" in errors


def test_offline_mode_is_named(repo, fake_hub, in_a_process, tmp_path):
    process = in_a_process(tmp_path, HF_ENDPOINT=fake_hub.url, HF_HUB_OFFLINE="1")
    _, errors = process.communicate(timeout=60)
    assert "HF_HUB_OFFLINE is set" in errors and process.returncode == 1
    assert not fake_hub.requests
