"""Requests that go straight into a WSGI application."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from flask import Flask


def budget_path(group: UUID) -> str:
    """Give the path of a group's budget."""
    return f"/api/v2/groups/{group}/ai/budget"


class Wsgi:
    """One request, sent as often as it is called; asserts the status and gives the body."""

    def __init__(
        self, app: Flask, method: str, path: str, user: UUID, *, body: bytes = b"",
        query: str = "", status: int = 200,
    ) -> None:  # fmt: skip
        self._app, self._body, self._expected = app.wsgi_app, body, str(status)
        self._environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "localhost",
            "HTTP_X_USER": str(user),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.errors": None,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if body:
            self._environ |= {
                "CONTENT_TYPE": "application/json",
                "CONTENT_LENGTH": str(len(body)),
            }

    def __call__(self) -> bytes:
        answer = self._app({**self._environ, "wsgi.input": BytesIO(self._body)}, self._start)
        try:
            return b"".join(answer)
        finally:
            if hasattr(answer, "close"):
                answer.close()

    def _start(self, status: str, *_: object) -> Any:  # noqa: ANN401 - the write callable of WSGI
        assert status.startswith(self._expected), f"expected {self._expected}, got {status}"
