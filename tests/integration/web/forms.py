"""What the tests of the pages fill in and send off."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
from fastapi.testclient import TestClient

PASSWORD = "correct horse battery"
LOCAL = "http://127.0.0.1:8080"

# Makes a browser: `browser(base_url, client)` of nobody, `enter(role)` of somebody who is logged in.
Enter = Callable[..., TestClient]


def csrf(client: TestClient, path: str = "/") -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get(path).text)
    assert found
    return found[1]


def submit(client: TestClient, username: str, password: str, **more: str) -> httpx.Response:
    token = csrf(client, "/login")
    return client.post("/login", data={"username": username, "password": password, "csrf_token": token, **more})
