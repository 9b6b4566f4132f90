"""The settings as options of the command line: one for each knob, made from the fields alone."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any

import typer

from ccm import errors, settings

_LIST = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Option:
    """One field with its knob. hint: its type."""

    field: str
    hint: Any
    default: Any
    knob: settings.Knob

    @property
    def name(self) -> str:
        return self.knob.flag[2:].replace("-", "_")

    @property
    def parameter(self) -> inspect.Parameter:
        knob = self.knob
        flag = f"{knob.flag}/--no-{knob.flag[2:]}" if self.hint is bool else knob.flag
        variables = [f"CCM_{self.name.upper()}", *knob.also]
        option = typer.Option(flag, envvar=variables, help=knob.text, min=knob.least, max=knob.most)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.default is MISSING else self._shown(),
            annotation=Annotated[self._shown_type(), option],
        )

    def value(self, given: Any) -> Any:
        """Return the field's value for what Typer read. Raises: ConfigError."""
        if self.knob.is_repeatable:
            return settings.parse_list(",".join(given))
        if self.hint == _LIST:
            return settings.parse_list(given)
        return settings.parse_duration_s(self.knob.flag, given) if self.hint is float else given

    def _shown_type(self) -> Any:
        if self.knob.is_repeatable:
            return list[str]
        return str if self.hint in (float, _LIST) else self.hint

    def _shown(self) -> Any:
        if self.knob.is_repeatable:
            return list(self.default)
        if self.hint == _LIST:
            return ",".join(self.default)
        return f"{self.default:g}s" if self.hint is float else self.default


def takes_settings(run: Callable[[settings.Settings], None]) -> Callable[..., None]:
    """Return `run` with an option for each knob in place of the settings, for Typer to read.

    What can't be is one line and exit code 2, also where `run` raises ConfigError.
    """
    options = [*_options(settings.Settings), *_options(settings.LeaseSettings)]

    def command(**given: Any) -> None:
        def values(kind: type) -> dict[str, Any]:
            return {one.field: one.value(given[one.name]) for one in _options(kind)}

        try:
            lease = settings.LeaseSettings(**values(settings.LeaseSettings))
            run(settings.Settings(**values(settings.Settings), lease=lease))
        except errors.ConfigError as error:
            typer.echo(f"fakecloud-ccm: {error}", err=True)
            raise typer.Exit(2) from None

    parameters = [one.parameter for one in options]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = run.__doc__
    return command


def _options(kind: type) -> Iterator[_Option]:
    hints = typing.get_type_hints(kind, include_extras=True)
    for one in fields(kind):
        if typing.get_origin(hints[one.name]) is Annotated:
            hint, knob = typing.get_args(hints[one.name])
            yield _Option(one.name, hint, one.default, knob)
