"""The command line: fakecloud-ccm run, explain, teardown, manifests, release, version."""

from __future__ import annotations

import asyncio

import typer

from ccm import app, commands, logs, options, upstream
from ccm import settings as settings_

cli = typer.Typer(
    name="fakecloud-ccm",
    help="Cloud controller manager: one fakecloud load balancer per Service of type LoadBalancer.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help shows long option names whole
    pretty_exceptions_enable=False,
)


@cli.command()
def version() -> None:
    """Print the version."""
    typer.echo(settings_.VERSION)


def run(settings: settings_.Settings) -> None:
    """Watch Services and Nodes and keep one load balancer per Service.

    Exit codes: 0 stopped as asked, 1 lost the lease or failed, 2 wrong usage or configuration.
    """
    logs.configure(settings.log_level)
    raise typer.Exit(_run(settings))


cli.command("run", cls=upstream.Command)(options.takes_settings(run))


cli.command()(commands.explain)
cli.command()(commands.manifests)
cli.command()(commands.release)
cli.command()(commands.teardown)


def main() -> None:
    """Run the command line."""
    cli()


def _run(settings: settings_.Settings) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(app.run(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(app.run(settings))


if __name__ == "__main__":
    main()
