"""fakecloud admin: for who runs the cloud.

Exit codes: 0 done, 1 failed (check: a promise does not hold), 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fakecloud.cli import client, output

app = typer.Typer(help="For who runs the cloud.", no_args_is_help=True)


@app.command()
def check(
    o: output.Output = output.Format.TABLE,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Check every promise of the cloud (I1 to I15); exit code 1 if one does not hold.

    Example: fakecloud admin check
    """
    with client.connect(url, token_file) as cloud:
        found = cloud.post("/v1/admin:check")
    if o is output.Format.JSON:
        output.json(found)
    elif found["violations"] or o is output.Format.CSV:
        lines = [[v["invariant"], v["object"], v["message"]] for v in found["violations"]]
        output.rows(o, ("invariant", "object", "message"), lines)
    else:
        typer.echo(f"all hold: {', '.join(found['checked'])}")
    if not found["ok"]:
        raise typer.Exit(1)


@app.command()
def export(
    file: Annotated[
        Path | None, typer.Option("-f", "--file", help="default: standard output")
    ] = None,
    url: client.Url = client.DEFAULT_URL,
    token_file: client.TokenFile = None,
) -> None:
    """Write everything of the project as lines of JSON.

    Example: fakecloud admin export -f project.ndjson
    """
    with client.connect(url, token_file) as cloud:
        lines = cloud.lines("/v1/admin:export", method="POST")
        if file is None:
            for line in lines:
                typer.echo(line)
            return
        try:
            with file.open("w", encoding="utf-8") as target:
                target.writelines(f"{line}\n" for line in lines)
        except OSError as error:
            raise client.CommandFailed(f"{file}: {error.strerror}") from None
