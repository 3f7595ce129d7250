"""Signing in to the pages with a bearer token: a signed cookie that names the token's id."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID

from flask import Response, redirect, request
from itsdangerous import BadSignature, Signer
from werkzeug.exceptions import HTTPException

from govbudget.errors import GovBudgetError, SettingsError
from govbudget.pages.part import NAME, make_blueprint
from govbudget.pages.render import Page, Renderer
from govbudget.server.tokens import TOKEN_PREFIX, BearerTokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sqlalchemy import Connection
    from werkzeug.routing import MapAdapter

    from govbudget.identity import Id
    from govbudget.pages.part import Handlers
    from govbudget.spend.installation import Installation

    Run = Callable[[Callable[..., Any]], Any]

SECRET_KEY = "GOVBUDGET_SECRET_KEY"  # noqa: S105 - the name of the setting
MIN_KEY = 32
COOKIE = "govbudget_session"
MAX_FORM = 8192
LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}


def open_sessions(gov: Installation, tokens: BearerTokens, run: Run) -> Sessions | None:
    """Add the pages to the stand-alone application, at `/`; None where no key is set."""
    key = gov.app.config.get(SECRET_KEY)
    if not key:
        return None
    if len(key) < MIN_KEY:
        raise SettingsError(
            f"`{SECRET_KEY}` is too short; write {MIN_KEY} or more random characters"
        )
    sessions = Sessions(gov, tokens, run, key)
    gov.app.register_blueprint(
        make_blueprint(gov, "", sessions.identify, sessions.list_paths, sessions.show_sign_in)
    )
    return sessions


class Sessions:
    """The sign-in of the pages. The API never asks it who calls."""

    renderer: Renderer

    def __init__(self, gov: Installation, tokens: BearerTokens, run: Run, key: str) -> None:
        """Take what looks tokens up, and the key that signs."""
        self._gov, self._tokens, self._run = gov, tokens, run
        self._signer = Signer(
            key, salt="govbudget.session", key_derivation="hmac", digest_method=hashlib.sha256
        )

    def list_paths(self, renderer: Renderer) -> Handlers:
        """Give the paths of the sign-in."""
        self.renderer = renderer
        return {
            "/sign-in": {"GET": lambda _: self.show_sign_in(), "POST": lambda _: self._sign_in()},
            "/sign-out": {"POST": lambda _: self._sign_out()},
        }

    def identify(self) -> Id | None:
        """Give the user of the token that the cookie names, while that is live."""
        return None if self._read_token_id() is None else self._run(self.find_user)

    def find_user(self, connection: Connection) -> Id | None:
        """Find that user on a connection."""
        token_id = self._read_token_id()
        return None if token_id is None else self._tokens.find_user_by_id(connection, token_id)

    def _read_token_id(self) -> UUID | None:
        try:
            return UUID(self._signer.unsign(request.cookies.get(COOKIE, "")).decode())
        except (BadSignature, ValueError):
            return None

    def show_sign_in(self, wrong: str | None = None, status: int = 200) -> Response:
        """Show the form."""
        given = request.form.get("next") if request.method == "POST" else self._where()
        values = {"next": self._check_next(given), "wrong": wrong}
        return self.renderer.render(Page("sign_in", "Sign in", values, status=status))

    def show_problem(self, problem: Response) -> Response:
        """Make a page of a problem, for a browser outside of the API."""
        is_api = f"{request.path}/".startswith(f"{self._gov.settings.url_prefix}/")
        wants_page = "text/html" in request.accept_mimetypes.values()
        if is_api or not wants_page:
            return problem
        return self.renderer.finish(self.renderer.render_problem(problem))

    def _where(self) -> str:
        """Give the page that was asked for; of the form itself, the one that it is for."""
        if request.path.startswith("/sign-"):
            return request.args.get("next", "/")
        return request.full_path.rstrip("?")

    def _check_next(self, given: str | None) -> str:
        """Give the address of a page of ours, or that of the first one: never another site's."""
        adapter: MapAdapter = self._gov.app.url_map.bind("")
        try:
            split = urlsplit(given or "/")
            endpoint, _ = adapter.match(split.path, method="GET")
        except (HTTPException, ValueError):  # no page of ours; no address at all
            return "/"
        is_ours = endpoint.startswith(f"{NAME}.") and re.match(r"/(?!/|sign-)", split.path)
        if split.scheme or split.netloc or not is_ours:
            return "/"
        return self.renderer.url(split.path) + (f"?{split.query}" if split.query else "")

    def _require_own_form(self) -> None:
        """Refuse a form of another site; a browser says where each POST comes from."""
        host = request.host
        # The browser may speak TLS with a proxy, which speaks to us without.
        if not host or request.headers.get("Origin") not in {f"http://{host}", f"https://{host}"}:
            raise GovBudgetError("forbidden", "the form was not sent by a page of this site")

    def _sign_in(self) -> Response:
        request.max_content_length = MAX_FORM
        self._require_own_form()
        secret, token_id = request.form.get("token", "").strip(), None
        if secret.startswith(TOKEN_PREFIX):
            token_id = self._run(lambda c: self._tokens.find_id(c, secret))
        if token_id is None:
            return self.show_sign_in("This token is not known, has expired or was revoked.", 401)
        response = self._redirect(self._check_next(request.form.get("next")))
        response.set_cookie(
            COOKIE,
            self._signer.sign(str(token_id)).decode(),
            secure=re.sub(r":[0-9]*$", "", request.host) not in LOOPBACK,
            httponly=True,
            samesite="Strict",
        )
        return response

    def _sign_out(self) -> Response:
        self._require_own_form()
        response = self._redirect(self.renderer.url("/sign-in"))
        response.delete_cookie(COOKIE, httponly=True, samesite="Strict")
        return response

    @staticmethod
    def _redirect(to: str) -> Response:
        return redirect(to, 303)  # type: ignore[return-value]  # of Flask's own class
