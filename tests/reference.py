"""Writes docs/annotations.md from the typed tables: `python -m tests.reference`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ccm.service import annotations, dialects

FILE = Path(__file__).parent.parent / "docs" / "annotations.md"

_TITLES = {
    dialects.AWS: "AWS",
    dialects.HETZNER: "Hetzner",
    dialects.DIGITALOCEAN: "DigitalOcean",
    dialects.OPENSTACK: "OpenStack",
    dialects.METALLB[0]: "MetalLB (`metallb.io/` and `metallb.universe.tf/`)",
}

_HEAD = """# Annotations of a Service

Written by `python -m tests.reference` from the typed tables in `ccm/service`; a test fails when it
is out of date. A value that isn't one refuses the Service, with an Event that says what it must
be; a name that isn't known has an Event with the nearest one. Beside these, `chaos.fakecloud.dev/*`
goes to the cloud as it is and disturbs this load balancer.
"""


def render() -> str:
    """Return the reference."""
    lines = [_HEAD, "| annotation | value | default | meaning |", "|---|---|---|---|"]
    lines += [_row(one) for one in annotations.TABLE]
    lines += ["", "## Written by the controller", "", "| annotation | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in annotations.WRITTEN.items()]
    lines += [
        "",
        "## Annotations of other controllers",
        "",
        "Manifests written for these run unchanged: what can be had here is translated, the rest is",
        "reported in an Event. Ours win over theirs.",
    ]
    for prefix, title in _TITLES.items():
        rows = [one for one in dialects.TABLE if one.name.startswith(prefix)]
        lines += ["", f"### {title}", "", "| annotation | becomes |", "|---|---|"]
        lines += _foreign(prefix, rows)
    return "\n".join(lines) + "\n"


def _row(one: annotations.Annotation[Any]) -> str:
    return f"| `{one.name}` | {one.kind.words} | {_default(one)} | {one.meaning} |"


def _default(one: annotations.Annotation[Any]) -> str:
    if one.default_words:
        return one.default_words
    match one.default:
        case bool(value):
            return f"`{str(value).lower()}`"
        case value:
            return f"`{value}`"


def _foreign(prefix: str, rows: Iterable[dialects.Foreign]) -> list[str]:
    def becomes(text: str) -> str:
        names = text.split(", ")
        if all(name.split(":")[0] in _KNOWN for name in names):
            return ", ".join(f"`{name}`" for name in names)
        return text

    shown = prefix if prefix not in dialects.METALLB else ""
    return [
        f"| `{shown}{one.name.removeprefix(prefix)}` | {becomes(one.becomes)} |" for one in rows
    ]


_KNOWN = {one.name for one in annotations.TABLE}


if __name__ == "__main__":
    FILE.write_text(render(), "utf-8")
