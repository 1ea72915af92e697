"""The Prometheus text of one process over HTTP, beside its API and without a key. Does not know what is measured."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server

from matinee.settings.addresses import is_loopback, url_of
from matinee.settings.serving import ServingSettings
from serve.api.clients import TrustedHosts
from serve.errors import RequestError

WsgiApp = Callable[[dict[str, Any], Any], Iterable[bytes]]


@contextmanager
def exported(registry: CollectorRegistry, host: str, port: int, serving: ServingSettings) -> Iterator[str]:
    """Serve it until the end of the `with`; yields its URL. Raises `OSError` where the port can't be had.

    On a loopback address it answers only to the hosts that a server without keys answers to: no web page of another site reads it.
    """
    server, thread = start_http_server(port, host, registry)
    if is_loopback(host):
        server.set_app(_checked(make_wsgi_app(registry), TrustedHosts((serving.host, *serving.hosts))))
    try:
        yield f"{url_of(host, server.server_port)}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _checked(app: WsgiApp, hosts: TrustedHosts) -> WsgiApp:
    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        names = {"HTTP_HOST": b"host", "HTTP_ORIGIN": b"origin"}
        try:
            hosts.check([(name, environ[key].encode("latin-1")) for key, name in names.items() if key in environ])
        except RequestError:
            start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"these metrics are for this machine: ask for them by its address, or add the name to serving.hosts\n"]
        return app(environ, start_response)

    return answer
