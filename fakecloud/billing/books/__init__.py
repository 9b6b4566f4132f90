"""The price books that come with the product, one YAML file each."""

from __future__ import annotations

from importlib.resources import files

import yaml

from fakecloud.billing.prices import PriceBook, parse
from fakecloud.errors import StartError


def names() -> list[str]:
    """Return the books that there are."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files(__name__).iterdir()
        if entry.name.endswith(".yaml")
    )


def load(name: str) -> PriceBook:
    """Return a book by its name. Raises: StartError that names the books there are."""
    if name not in names():
        raise StartError(f"there is no price book {name!r}; there are: {', '.join(names())}")
    text = files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    try:
        return parse(yaml.safe_load(text), name)
    except yaml.YAMLError as error:
        raise StartError(f"price book {name} is not YAML: {error}") from None
