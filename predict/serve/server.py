"""The page in the browser: drop a song, see its emotion. For one person on one machine, on the loopback address.

What a stranger's page in the same browser could try, and what stops it: a name that it rebinds to this machine is
refused by its Host header; a request across origins needs a preflight (the type of the upload is none of the simple
ones), which is not answered; no route takes a path or a name, and uploads lie under names of our own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from importlib.resources import files
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from m2e.common.console import say
from m2e.common.errors import DataError, RequestError
from m2e.common.temporary import temporary_file
from m2e.predict.serve.uploads import CONNECTIONS_IN_ALL, Connection, Refused, Uploads, pass_over, receive
from m2e.predict.serve.worker import Limits, Worker
from m2e.predict.setup import Setup, describe

UPLOAD_TYPE = "application/octet-stream"
_PAGES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def serve_page(setup: Setup, host: str, port: int, limits: Limits) -> None:
    """Serve until interrupted; port 0 takes a free one. The address is said on standard error.

    Raises:
        DataError: the address cannot be used, or the model cannot be loaded.
        RequestError: `host` does not name one address.
    """
    local = is_loopback(host)
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise DataError(f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --port") from error
    with listener, Worker(setup, limits) as worker:
        if not local:
            say(f"whoever reaches {host} can send songs here: there is no password", "note", "red")
        address = f"http://{host}:{listener.getsockname()[1]}"
        say(f"Open {address} and drop a song; Ctrl-C ends it.")
        app = make_app(worker, describe(setup), limits, host)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="warning",
            limit_concurrency=CONNECTIONS_IN_ALL,
            server_header=False,
        )
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            say("ended.")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`.

    Raises:
        RequestError: it stands for many addresses, so that a Host header could not be checked, or is IPv6.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        raise RequestError(f"--host: {host!r} is no IPv4 address, nor localhost") from None
    if address.is_unspecified or address.is_multicast:
        raise RequestError(f"--host: {host} is no address of this machine: name one")
    return address.is_loopback


def make_app(worker: Worker, about: dict[str, Any], limits: Limits, host: str) -> Starlette:
    """The application, for requests to `host` and to the names of the loopback address."""
    texts = {
        path: (files("m2e.predict.serve").joinpath(name).read_bytes(), kind) for path, (name, kind) in _PAGES.items()
    }
    about_text = json.dumps({**about, "upload_bytes": limits.upload_bytes}).encode()
    texts["/model"] = (about_text, "application/json")
    uploads, turn = Uploads(), asyncio.Lock()

    async def page(request: Request) -> Response:
        content, kind = texts[request.url.path]
        return Response(content, media_type=kind, headers=_HEADERS)

    async def predict(request: Request) -> Response:
        if request.headers.get("content-type") != UPLOAD_TYPE:
            return _answer(415, {"error": f"send the song itself, as {UPLOAD_TYPE}"})
        chunks = request.stream()
        try:
            with uploads.one_of(request.client.host if request.client else ""), temporary_file() as file:
                await receive(chunks, file, limits.upload_bytes)
                async with turn:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    return _answer(200, await run_in_threadpool(worker.predict, Path(file.name)))
        except ClientDisconnect:  # a closed page; nobody hears the answer
            return _answer(400, {"error": "the upload broke off"})
        except DataError as error:
            return _answer(422, {"error": str(error)})
        except Refused as error:
            status, reason = error.status, str(error)
        except OSError as error:
            status, reason = 507, f"no room for the upload here: {error.strerror}"
        await pass_over(chunks, limits.upload_bytes)
        return _answer(status, {"error": reason})

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost", "127.0.0.1"], www_redirect=False)
    routes = [*(Route(path, page) for path in texts), Route("/predict", predict, methods=["POST"])]
    return Starlette(routes=routes, middleware=[hosts])


def _answer(status: int, values: dict[str, Any]) -> Response:
    # What is left of a refused upload is not read: the connection ends.
    ending = {} if status == 200 else {"Connection": "close"}
    return Response(json.dumps(values), status, media_type="application/json", headers=_HEADERS | ending)
