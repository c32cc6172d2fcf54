"""The admin page over HTTP: its login, its pages, and the files that they need.

Every answer forbids scripts and styles of any other place, and whatever changes something has to come from a page of
this server (`origins`). What the pages show they ask for over a WebSocket (`gateway.transport.admin`).
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qs

import jinja2
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.api.admin.logins import LoginLimit
from gateway.api.admin.origins import CROSS_SITE_TEXT, is_from_own_page, is_secure
from gateway.api.admin.sessions import COOKIE, Sessions, Ticket, cookie_of
from gateway.api.keys import KeyRing
from gateway.api.static import FreshFiles
from gateway.protocol.server_api import Scope

PATH: Final = "/admin"
_HERE: Final = files("gateway.api.admin")
_PLAYGROUND: Final = files("gateway.api") / "playground"
_MAX_FORM_BYTES: Final = 8192
_FORM_TIMEOUT_S: Final = 10.0
_HOST: Final = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class Page(NamedTuple):
    """A page that only who has logged in may see; *fields* are what its address may say."""

    path: str
    name: str
    template: str
    script: str
    fields: tuple[str, ...] = ()
    is_in_menu: bool = True


PAGES: Final = (
    Page("", "Overview", "overview.html", "overview.js"),
    Page("/channels", "Channels", "channels.html", "channels.js", ("pattern",)),
    Page("/channel", "Channel", "channel.html", "channel.js", ("name",), is_in_menu=False),
    Page("/connections", "Connections", "connections.html", "connections.js", ("user", "channel")),
    Page("/publish", "Publish", "publish.html", "publish.js", ("channel",)),
)


class AdminPages:
    """Serves the pages. *ended* is told which session was logged out, *log* how each login ended."""

    def __init__(
        self,
        keys: KeyRing,
        sessions: Sessions,
        *,
        node: str,
        version: str,
        unix: Callable[[], float],
        monotonic: Callable[[], float],
        ended: Callable[[str], object],
        log: "LoginLog",
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._unix = unix
        self._monotonic = monotonic
        self._ended = ended
        self._log = log
        self._limit = LoginLimit()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("gateway.api.admin"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            auto_reload=False,
        )
        menu = [(page.path, page.name) for page in PAGES if page.is_in_menu]
        self._templates.globals.update(pages=menu, node=node, version=version)
        for name in self._templates.list_templates():
            self._templates.get_template(name)  # compiled before anybody is served, whom 10 ms for each would hold up

    def routes(self) -> Sequence[BaseRoute]:
        """Return the routes of all of it."""
        static = _AdminFiles(directory=str(_HERE / "static"))
        return [
            *(Route(PATH + page.path, self._serving(page)) for page in PAGES),
            Route(f"{PATH}/", self._go_home),
            Route(f"{PATH}/login", self._show_login),
            Route(f"{PATH}/login", self._log_in, methods=["POST"]),
            Route(f"{PATH}/logout", self._log_out, methods=["POST"]),
            Route(f"{PATH}/session", self._tell_session),
            Mount(f"{PATH}/static", static),
        ]

    def ticket(self, request: Request) -> Ticket | None:
        """Return the session that *request* shows, if it does."""
        return self._sessions.read(cookie_of(request.headers.get("cookie")), unix_s=self._unix())

    def _serving(self, page: Page) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            ticket = self.ticket(request)
            if ticket is None:
                return _redirect(request, "/login")
            query = {name: request.query_params.get(name, "") for name in page.fields}
            title = query.get("name") or page.name
            return self._render(
                request, page.template, title=title, current=page.path, script=page.script, key=ticket.key, query=query
            )

        return serve

    async def _go_home(self, request: Request) -> Response:
        return _redirect(request, "")

    async def _tell_session(self, request: Request) -> Response:
        """Tell a page whose connection was refused whether it is its login that is over."""
        return PlainTextResponse("", 204 if self.ticket(request) else 401, headers={"Cache-Control": "no-store"})

    # Login and logout.

    async def _show_login(self, request: Request) -> Response:
        if self.ticket(request) is not None:
            return _redirect(request, "")
        return self._login_form(request)

    async def _log_in(self, request: Request) -> Response:
        address = request.client.host if request.client else ""
        if not is_from_own_page(request.headers):
            self._log.refused("cross_site", address)
            return _refuse_cross_site()
        # Before the limit is asked: many forms whose ends are held back would else all have got past it together.
        shown = await _form_field(request, "key")
        if shown is None:
            self._log.refused("incomplete", address)
            return PlainTextResponse("The form did not arrive as a whole.\n", 400)
        wait_s = self._limit.wait_s(address, now_s=self._monotonic())
        if wait_s:
            self._log.refused("limited", address)
            seconds = int(wait_s) + 1
            problem = f"Too many attempts from your address: wait {seconds} seconds."
            return self._login_form(request, problem, status=429, headers={"Retry-After": str(seconds)})
        holder = self._keys.holder(shown.encode(errors="surrogatepass")) if shown else None
        if holder is None or not holder.may(Scope.ADMIN):
            # Both count: else a key of another scope could be guessed here.
            self._limit.note_failure(address, now_s=self._monotonic())
            self._log.refused("wrong_key" if holder is None else "missing_scope", address)
            problem = "This is none of the gateway's keys." if holder is None else "This key has not the scope “admin”."
            return self._login_form(request, problem, status=403)
        self._log.accepted(holder.name, address)
        response = _redirect(request, "")
        response.set_cookie(
            COOKIE,
            self._sessions.open(holder.name, unix_s=self._unix()),
            max_age=int(self._sessions.ttl_s),
            path=_base(request),
            secure=is_secure(request.headers, scheme=request.url.scheme),
            httponly=True,
            samesite="strict",
        )
        return response

    async def _log_out(self, request: Request) -> Response:
        if not is_from_own_page(request.headers):
            return _refuse_cross_site()
        ticket = self.ticket(request)
        if ticket is not None:
            self._ended(ticket.session)
        response = _redirect(request, "/login")
        response.delete_cookie(COOKIE, path=_base(request), httponly=True, samesite="strict")
        return response

    def _login_form(self, request: Request, problem: str = "", *, status: int = 200, **kwargs: Any) -> Response:
        return self._render(
            request,
            "login.html",
            title="Log in",
            problem=problem,
            has_keys=self._sessions.has_keys,
            status=status,
            **kwargs,
        )

    def _render(
        self,
        request: Request,
        template: str,
        *,
        status: int = 200,
        headers: dict[str, str] | None = None,
        key: str = "",
        script: str = "",
        current: str | None = None,
        **values: Any,
    ) -> Response:
        html = self._templates.get_template(template).render(
            base=_base(request), key=key, script=script, current=current, **values
        )
        return HTMLResponse(html, status, headers=_page_headers(request) | (headers or {}))


class LoginLog:
    """Counts how logins end, and logs it: the key's name, and never a key."""

    def __init__(self, counter: dict[str, int], log: structlog.typing.FilteringBoundLogger) -> None:
        self._counter = counter
        self._log = log.bind(scope="admin")

    def accepted(self, key: str, address: str) -> None:
        """Note that the holder of *key* is in."""
        self._counter["accepted"] = self._counter.get("accepted", 0) + 1
        self._log.info("admin logged in", user=key, address=address)

    def refused(self, reason: str, address: str) -> None:
        """Note that somebody is not."""
        self._counter[reason] = self._counter.get(reason, 0) + 1
        self._log.warning("admin login refused", reason=reason, address=address)


class _AdminFiles(FreshFiles):
    """The files of the admin page, and the client of the protocol that it shares with the playground."""

    def lookup_path(self, path: str) -> Any:
        if path == "session.js":
            return StaticFiles(directory=str(_PLAYGROUND)).lookup_path(path)
        return super().lookup_path(path)


def _base(request: Request) -> str:
    """Return where the admin page is, also within another application."""
    return str(request.scope.get("root_path", "")).rstrip("/") + PATH


def _redirect(request: Request, path: str) -> RedirectResponse:
    return RedirectResponse(_base(request) + path, 303, headers={"Cache-Control": "no-store"})


def _refuse_cross_site() -> Response:
    return PlainTextResponse(CROSS_SITE_TEXT, 403)


def _page_headers(request: Request) -> dict[str, str]:
    host = request.headers.get("host", "")
    # 'self' covers WebSockets in newer browsers only.
    sockets = f" ws://{host} wss://{host}" if _HOST.fullmatch(host) else ""
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'{sockets}; img-src 'self'; "
            "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        ),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        # Not no-referrer: that makes browsers hide the Origin of forms.
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


async def _form_field(request: Request, name: str) -> str | None:
    """Return a field of a form that was sent, empty if it has none; a form is never long here.

    `None` if it did not come as a whole, and in time: whoever sends it has shown no key yet.
    """
    body = b""
    try:
        async with asyncio.timeout(_FORM_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_FORM_BYTES:
                    return ""
    except (ClientDisconnect, TimeoutError):
        return None
    try:
        return parse_qs(body.decode("latin-1"), max_num_fields=16).get(name, [""])[0].strip()
    except ValueError:
        return ""
