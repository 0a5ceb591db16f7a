"""LocalStack listens where GATEWAY_LISTEN says and nowhere else.

LocalStack takes the port of an IPv4 address and listens on every interface, which would open a laptop's stack to its
network.
"""

from __future__ import annotations

from typing import Any


def install() -> None:
    """Replace how the runtime's server opens its ports; plain HTTP, because all that connects is this machine."""
    from localstack.runtime.server.twisted import TwistedRuntimeServer

    TwistedRuntimeServer.register = _register


def _register(_server: Any, gateway: Any, listen: list[Any], _ssl_files: tuple[str, str] | None = None) -> None:
    from rolo.serving.twisted import TwistedGateway
    from twisted.internet import endpoints, reactor

    for address in listen:
        endpoint = endpoints.TCP4ServerEndpoint(reactor, address.port, interface=address.host)
        endpoint.listen(TwistedGateway(gateway))
