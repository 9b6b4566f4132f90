"""Manifests of Kubernetes in files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from fakecloud.cli import client


def read(place: Path) -> list[Any]:
    """Return the documents of a file, of every YAML or JSON file in a folder, or of the input."""
    try:
        if str(place) == "-":
            return list(yaml.safe_load_all(sys.stdin))
        files = (
            sorted(one for one in place.rglob("*") if one.suffix in (".yaml", ".yml", ".json"))
            if place.is_dir()
            else [place]
        )
        return [
            document
            for file in files
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        ]
    except OSError as error:
        raise client.CommandFailed(f"{error.filename or place}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise client.CommandFailed(f"{place} is not YAML: {reason}") from None
