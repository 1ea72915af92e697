"""The page where raters answer: one self-contained page over `FOLDER/sheets`, on this machine only, each answer saved at once.

A rater's sheet is read anew before each change, so that closing the page, stopping the server, or editing the file loses nothing. Never
opens the key: it can't tell a rater, or anyone else, which model wrote what.
"""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from matinee.errors import MatineeError, NotFoundError, SettingsError, SourceError
from train.human.rating_sheets import BETWEEN_FACTS, SHOWN, Sheet, read_sheet, sheet_path, sheet_paths, write_sheet
from train.jobs import command
from train.reporting.render import render

PAGE = Path(__file__).with_name("rating_page.html.j2")
LOOPBACK = "127.0.0.1"
MAX_BODY = 10_000


class RowAnswers(BaseModel):
    """One or more answers to one row."""

    model_config = ConfigDict(extra="forbid", strict=True)

    item: str
    answers: dict[str, str]


class Sheets:
    """The sheets of a folder; one change at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = Lock()
        # Every one is readable now, rather than when its rater comes.
        for path in sheet_paths(folder):
            read_sheet(path)

    def progress(self) -> list[dict[str, Any]]:
        sheets = [read_sheet(path) for path in sheet_paths(self._folder)]
        return [{"rater": sheet.rater, "done": sheet.done, "of": len(sheet.rows)} for sheet in sheets]

    def show(self, rater: str) -> dict[str, Any]:
        sheet = self._find(rater)
        return {
            "rater": sheet.rater,
            "form": sheet.form.name,
            "asks": sheet.form.asks,
            "values": sheet.form.values,
            "rows": [
                {name: row[name] for name in SHOWN}
                | {"facts": row["facts"].split(BETWEEN_FACTS), "answers": {ask: row[ask] for ask in sheet.form.asks}}
                for row in sheet.rows
            ],
        }

    def save(self, rater: str, item: str, answers: Mapping[str, str]) -> dict[str, int]:
        with self._lock:
            sheet = self._find(rater)
            row = next((row for row in sheet.rows if row["item"] == item), None)
            if row is None:
                raise NotFoundError(f"the sheet of {rater} has no item {item!r}")
            row.update({ask: sheet.form.check(ask, value, f"item {item}") for ask, value in answers.items()})
            write_sheet(sheet.path, sheet.form, sheet.rows)
            return {"done": sheet.done, "of": len(sheet.rows)}

    def _find(self, rater: str) -> Sheet:
        path = sheet_path(self._folder, rater)
        if not path.is_file():
            raise NotFoundError(f"there is no sheet of {rater}: open the link that `python -m train.ratings serve` printed for you")
        return read_sheet(path)


def build(folder: Path) -> Starlette:
    sheets = Sheets(folder)

    def page(request: Request) -> Response:
        # Texts of models and catalogues are shown here: no script but the page's own may run, whatever they hold.
        nonce = secrets.token_urlsafe(16)
        policy = f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
        policy += "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        return HTMLResponse(render(PAGE, nonce=nonce), headers={"Content-Security-Policy": policy, "Cache-Control": "no-store"})

    def index(request: Request) -> Response:
        return JSONResponse(sheets.progress())

    def show(request: Request) -> Response:
        return JSONResponse(sheets.show(request.path_params["rater"]))

    async def save(request: Request) -> Response:
        # A form of another site can't send this type without asking first.
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            raise SourceError("send application/json")
        if int(request.headers.get("content-length") or MAX_BODY + 1) > MAX_BODY:
            raise SourceError(f"an answer is shorter than {MAX_BODY} bytes: send Content-Length, and one row a request")
        try:
            update = RowAnswers.model_validate_json(await request.body())
        except ValidationError as error:
            raise SourceError(f'not an answer: {error.errors()[0]["msg"]}; send {{"item": ID, "answers": {{QUESTION: VALUE}}}}') from None
        return JSONResponse(await run_in_threadpool(sheets.save, request.path_params["rater"], update.item, update.answers))

    def explain(request: Request, error: Exception) -> Response:
        return JSONResponse({"message": str(error)}, status_code=404 if isinstance(error, NotFoundError) else 422)

    one = "/sheets/{rater}"
    routes = [Route("/", page), Route("/sheets", index), Route(one, show), Route(one, save, methods=["PUT"])]
    # Only by these names: a page elsewhere whose own name points here is no rater.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False)
    return Starlette(routes=routes, middleware=[hosts], exception_handlers={MatineeError: explain})


def run(folder: Path, port: int) -> None:
    """Serve until interrupted. Raises `SettingsError` where the port is taken or another server has the sheets."""
    app = build(folder)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
        except OSError as error:
            raise SettingsError(f"port {port}: {error.strerror}; --port 0 takes a free one") from None
        try:
            with FileLock(folder / ".serving.lock", timeout=0):
                # Whoever reads the line may come at once: from here on he waits for the page and is not refused.
                listener.listen()
                command.echo(f"rate at http://{LOOPBACK}:{listener.getsockname()[1]}/ (Ctrl-C stops)")
                uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])
        except Timeout:
            raise SettingsError(f"another server has {folder}: stop it first") from None
