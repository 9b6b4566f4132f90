"""fakecloud network, fakecloud route: what is behind the machines, and the way there."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from fakecloud.cli import client, output

networks = typer.Typer(help="Ranges of addresses behind the machines.", no_args_is_help=True)
routes = typer.Typer(help="Routes: which machine leads to which range.", no_args_is_help=True)

NETWORKS: Final = ("name", "ranges")
ROUTES: Final = ("name", "network", "destination", "next_hop", "state", "last_error")
Name = Annotated[str, typer.Argument(help="of the network or route")]


@networks.command("list")
def list_networks(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List networks.

    Example: fakecloud network list
    """
    with client.connect(url, token_file) as cloud:
        _show(o, NETWORKS, list(cloud.items("/v1/networks")))


@networks.command("put")
def put_network(
    name: Name,
    ranges: Annotated[list[str], typer.Option("--range", help="private CIDR; repeatable")],
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create a network, or change its ranges.

    Example: fakecloud network put pods --range 10.244.0.0/16
    """
    with client.connect(url, token_file) as cloud:
        _show(o, NETWORKS, [cloud.put(client.path("networks", name), {"ranges": ranges})])


@networks.command("delete")
def delete_network(
    name: Name, url: client.Url = client.DEFAULT_URL, token_file: client.TokenFile = None
) -> None:
    """Delete a network that has no routes.

    Example: fakecloud network delete pods
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("networks", name))


@routes.command("list")
def list_routes(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List routes and whether load balancers can use them.

    Example: fakecloud route list
    """
    with client.connect(url, token_file) as cloud:
        _show(o, ROUTES, list(cloud.items("/v1/routes")))


@routes.command("put")
def put_route(
    name: Name,
    network: Annotated[str, typer.Option(help="the network that it leads to a part of")],
    destination: Annotated[str, typer.Option(help="CIDR in a range of the network")],
    next_hop: Annotated[str, typer.Option(help="address of the machine")],
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Create a route, or lead it elsewhere.

    Example: fakecloud route put n1 --network pods --destination 10.244.1.0/24 --next-hop 172.18.0.3
    """
    body = {"network": network, "destination": destination, "next_hop": next_hop}
    with client.connect(url, token_file) as cloud:
        _show(o, ROUTES, [cloud.put(client.path("routes", name), body)])


@routes.command("delete")
def delete_route(
    name: Name, url: client.Url = client.DEFAULT_URL, token_file: client.TokenFile = None
) -> None:
    """Delete a route.

    Example: fakecloud route delete n1
    """
    with client.connect(url, token_file) as cloud:
        cloud.delete(client.path("routes", name))


def _show(o: output.Format, columns: tuple[str, ...], found: list[Any]) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    output.rows(o, columns, [[_cell(one[column]) for column in columns] for one in found])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, dict):  # an error
        return str(value["message"])
    return "" if value is None else str(value)
