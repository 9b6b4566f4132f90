"""fakecloud fault: faults on demand."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import msgspec
import typer

from fakecloud.cli import client, output

app = typer.Typer(help="Faults on demand.", no_args_is_help=True)

COLUMNS = ("id", "name", "layer", "action", "on", "looks", "hits", "expires")
LOG_COLUMNS = ("at", "fault", "layer", "action", "subject")
ACTION_COLUMNS = ("layer", "action", "parameters", "what happens", "example")
_LISTS = frozenset({"methods", "sequence", "listeners"})

Pairs = list[str]


@app.command("list")
def list_all(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List faults with how often each looked and hit.

    Example: fakecloud fault list -o json
    """
    with client.connect(url, token_file) as cloud:
        _show(o, list(cloud.items("/v1/chaos/faults")))


@app.command()
def add(
    layer: Annotated[str, typer.Argument(help="api, watch, provision, worker or dataplane")],
    action: Annotated[str, typer.Argument(help="what a hit does, e.g. drop_after_commit")],
    parameter: Annotated[
        Pairs | None, typer.Option("-p", "--parameter", help="NAME=VALUE of the action")
    ] = None,
    match: Annotated[
        Pairs | None, typer.Option("-m", "--match", help="NAME=VALUE of what it is about")
    ] = None,
    trigger: Annotated[
        str | None, typer.Option(help="probability, every_n, first_n, nth or sequence =VALUE")
    ] = None,
    name: Annotated[str, typer.Option(help="shown in the list")] = "",
    priority: Annotated[int, typer.Option(help="higher ones are asked first")] = 0,
    seed: Annotated[int, typer.Option(help="with --id: the same hits again")] = 0,
    id: Annotated[str | None, typer.Option(help="flt_…; default: a new one")] = None,
    max_hits: Annotated[int | None, typer.Option(help="default: no limit")] = None,
    expires_in: Annotated[float | None, typer.Option(help="seconds; default 600")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Inject a fault. It removes itself after ten minutes unless told otherwise.

    Lose the answer to the next PUT, which was nevertheless done:

      fakecloud fault add api drop_after_commit -m methods=PUT --max-hits 1

    Answer 503 to one request in twenty:

      fakecloud fault add api status -p code=503 --trigger probability=0.05

    Let new connections of one load balancer wait 200 ms for the next minute:

      fakecloud fault add dataplane latency -p seconds=0.2 -p lasts_s=60 -m resource_name=web

    Let creation take 90 seconds:

      fakecloud fault add provision delay -p seconds=90 -m operation=create
    """
    fault: dict[str, Any] = {
        "layer": layer,
        "action": {"type": action, **_pairs(parameter, "--parameter")},
        "match": _pairs(match, "--match"),
        "trigger": _pairs([trigger] if trigger else None, "--trigger"),
        "name": name,
        "priority": priority,
        "seed": seed,
    }
    optional = {"id": id, "max_hits": max_hits, "expires_in_s": expires_in}
    fault |= {key: value for key, value in optional.items() if value is not None}
    with client.connect(url, token_file) as cloud:
        _show(o, [cloud.post("/v1/chaos/faults", fault)])


@app.command()
def remove(
    id: Annotated[str, typer.Argument(help="as in the list")],
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Remove a fault; what it held up goes on.

    Example: fakecloud fault remove flt_0123456789abcdef
    """
    if not id.replace("_", "").isalnum():
        raise typer.BadParameter(f"{id!r} is not the id of a fault")
    with client.connect(url, token_file) as cloud:
        cloud.delete(f"/v1/chaos/faults/{id}")
    typer.echo(f"{id}: removed")


@app.command()
def reset(
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Remove every fault of the project, and the log.

    Example: fakecloud fault reset
    """
    with client.connect(url, token_file) as cloud:
        done = cloud.post("/v1/chaos:reset")
    typer.echo(f"removed: {done['faults']} faults, {done['hits']} hits")


@app.command()
def log(
    last: Annotated[int, typer.Option(min=1, max=10_000, help="how many hits")] = 50,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Show what faults did, the newest first.

    Example: fakecloud fault log --last 10 -o csv
    """
    with client.connect(url, token_file) as cloud:
        found = list(islice(cloud.items("/v1/chaos/log"), last))
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["at"], one["fault_id"], one["layer"], one["action"], one["subject"]] for one in found
    ]
    output.rows(o, LOG_COLUMNS, lines)


@app.command()
def actions(
    layer: Annotated[str | None, typer.Argument(help="only those of this layer")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """List what faults can do, with a command for each; in brackets what may be left out.

    Example: fakecloud fault actions provision
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.get("/v1/chaos/actions")["items"]
    found = [one for one in found if layer in (None, one["layer"])]
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [
            one["layer"],
            one["type"],
            " ".join([*one["needs"], *(f"[{name}]" for name in one["may"])]),
            one["description"],
            one["example"],
        ]
        for one in found
    ]
    output.rows(o, ACTION_COLUMNS, lines)


@app.command()
def scenario(
    name: Annotated[str | None, typer.Argument(help="which to start; none: list them")] = None,
    seed: Annotated[int, typer.Option(help="other hits with another seed")] = 0,
    expires_in: Annotated[float | None, typer.Option(help="seconds; default: its own")] = None,
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Start a named set of faults, or list what there is.

    Example: fakecloud fault scenario flaky-5 --expires-in 60
    """
    with client.connect(url, token_file) as cloud:
        if name is None:
            _show_scenarios(o, cloud.get("/v1/chaos/scenarios")["items"])
            return
        if not name.replace("-", "").isalnum():
            raise typer.BadParameter(f"{name!r} is not the name of a scenario")
        how: dict[str, Any] = {"seed": seed}
        if expires_in is not None:
            how["expires_in_s"] = expires_in
        _show(o, cloud.post(f"/v1/chaos/scenarios/{name}", how)["items"])


def _pairs(texts: Pairs | None, option: str) -> dict[str, Any]:
    """Return NAME=VALUE as a JSON object; a value that is JSON is taken as such."""
    found: dict[str, Any] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"{option} {text!r} is not NAME=VALUE")
        if name in _LISTS and not value.startswith("["):
            found[name] = [_json(part) for part in value.split(",")]
        else:
            found[name] = _json(value)
    return found


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _show(o: output.Format, found: list[dict[str, Any]]) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [
            one["id"],
            one["name"],
            one["layer"],
            one["action"]["type"],
            "yes" if one["enabled"] else "no",
            str(one["looks"]),
            str(one["hits"]),
            one["expires_at"],
        ]
        for one in found
    ]
    output.rows(o, COLUMNS, lines, right=frozenset({"looks", "hits"}))


def _show_scenarios(o: output.Format, found: list[dict[str, Any]]) -> None:
    if o is output.Format.JSON:
        output.json(found)
        return
    lines = [
        [one["name"], str(one["faults"]), f"{one['expires_in_s']:g} s", one["description"]]
        for one in found
    ]
    output.rows(o, ("name", "faults", "lasts", "what happens"), lines)
