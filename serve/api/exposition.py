"""The Prometheus text of one process over HTTP, beside its API and without a key. Does not know what is measured."""

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from matinee.settings.addresses import is_loopback, url_of
from matinee.settings.serving import ServingSettings
from serve.api.clients import TrustedHosts
from serve.errors import RequestError


@contextmanager
def export_metrics(registry: CollectorRegistry, host: str, port: int, serving: ServingSettings) -> Iterator[str]:
    """Serve it until the end of the `with`; yields its URL. Raises `OSError` where the port can't be had.

    On a loopback address it answers only to the hosts that a server without keys answers to: no web page of another site reads it.
    """
    app: WSGIApplication = make_wsgi_app(registry)
    if is_loopback(host):
        app = _check_hosts(app, TrustedHosts((serving.host, *serving.hosts)))
    # `prometheus_client.start_http_server` would answer before it can be given a checked app.
    server = _server(app, host, port)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{url_of(host, server.server_port)}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: object) -> None:
        """A line for each scrape would be no news."""


def _server(app: WSGIApplication, host: str, port: int) -> WSGIServer:
    """Bound, and not answering yet."""
    family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return make_server(host, port, app, type("Server", (ThreadingWSGIServer,), {"address_family": family}), _Quiet)


def _check_hosts(app: WSGIApplication, hosts: TrustedHosts) -> WSGIApplication:
    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        names = {"HTTP_HOST": b"host", "HTTP_ORIGIN": b"origin"}
        try:
            hosts.check([(name, environ[key].encode("latin-1")) for key, name in names.items() if key in environ])
        except RequestError:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"these metrics are for this machine: ask for them by its address, or add the name to serving.hosts\n"]
        return app(environ, start_response)

    return answer
