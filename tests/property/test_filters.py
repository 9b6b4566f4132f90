"""What lists may be asked, against the plainest possible reading of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakecloud import errors
from fakecloud.domain import filters

FIELDS = {"name": ("name",), "state": ("status", "state"), "labels.": ("labels",)}
KEYS = st.from_regex(r"[a-z][a-z0-9]{0,5}([./-][a-z0-9]{1,4})?", fullmatch=True)
VALUES = st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,5}[a-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(KEYS, VALUES, max_size=4)
ANYTHING = st.text(max_size=40)

SETTINGS = settings(deadline=None, derandomize=True, database=None)


@st.composite
def requirements(draw, labels):
    """Return one requirement as text, and whether `labels` meet it."""
    key = draw(st.sampled_from(sorted(labels)) | KEYS) if labels else draw(KEYS)
    value = draw(st.sampled_from(sorted(labels.values())) | VALUES) if labels else draw(VALUES)
    more = draw(st.lists(VALUES, max_size=2))
    has = labels.get(key)
    listed = ", ".join([value, *more])
    return draw(
        st.sampled_from(
            [
                (key, has is not None),
                (f"!{key}", has is None),
                (f"{key}={value}", has == value),
                (f"{key} == {value}", has == value),
                (f"{key}!={value}", has != value),
                (f"{key} in ({listed})", has in (value, *more)),
                (f"{key} notin ({listed})", has not in (value, *more)),
            ]
        )
    )


@SETTINGS
@given(st.data(), LABELS)
def test_a_selector_holds_when_every_part_does(data, labels):
    parts = data.draw(st.lists(requirements(labels), min_size=1, max_size=5))
    comma = data.draw(st.sampled_from([",", ", ", " ,"]))
    selector = filters.parse_selector(comma.join(text for text, _ in parts))
    assert selector.matches(labels) is all(holds for _, holds in parts)


@st.composite
def terms(draw, document):
    field = draw(st.sampled_from(["name", "state", *(f"labels.{key}" for key in document[2])]))
    if field == "name":
        has = document[0]
    else:
        has = document[1] if field == "state" else document[2][field[7:]]
    value = draw(st.just(has) | ANYTHING)
    quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    equal = draw(st.booleans())
    space = draw(st.sampled_from(["", " "]))
    return f'{field}{space}{"=" if equal else "!="}{space}"{quoted}"', (has == value) is equal


@SETTINGS
@given(st.data(), st.tuples(ANYTHING, ANYTHING, LABELS))
def test_a_filter_holds_when_every_term_does(data, document):
    name, state, labels = document
    said = data.draw(st.lists(terms(document), min_size=1, max_size=4))
    found = filters.parse_filter(" AND ".join(text for text, _ in said), FIELDS)
    whole = {"name": name, "status": {"state": state}, "labels": labels}
    assert found.matches(whole) is all(holds for _, holds in said)


@SETTINGS
@given(st.text(alphabet='ab.=!,()"\\ AND notin:', max_size=60))
def test_any_text_is_understood_or_refused(text):
    for parse in (
        lambda: filters.parse_filter(text, FIELDS),
        lambda: filters.parse_selector(text),
        lambda: filters.parse_order(text, ("name",)),
        lambda: filters.parse_fields(text, ("name", "status")),
    ):
        try:
            parse()
        except (errors.InvalidFilter, errors.InvalidParameter) as refused:
            assert refused.detail  # noqa: PT017 - anything else is raised on


@SETTINGS
@given(
    st.lists(st.sampled_from(["name", "status", "status.state", "status.items.a", "labels.x.y"]))
)
def test_a_mask_gives_a_part_of_the_document_and_again_the_same(words):
    document = {
        "name": "web",
        "labels": {"x.y": "1", "x": "2"},
        "status": {"state": "ACTIVE", "items": [{"a": 1, "b": 2}, {"b": 3}]},
    }
    mask = filters.parse_fields(",".join(words), ("name", "status", "labels"))
    if mask is None:
        assert not words
        return
    part = mask.apply(document)
    assert mask.apply(part) == part
    assert ("name" in part) is ("name" in words)
    if "status" in words:
        assert part["status"] == document["status"]
    elif "status.items.a" in words:
        assert part["status"]["items"] == [{"a": 1}, {}]
    if "labels.x.y" in words:
        assert part["labels"] == {"x.y": "1"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("colour=red", "colour"),
        ("name=a OR name=b", "AND"),
        ("(name=a)", "character 0"),
        ("name~a", "character 0"),
        ('name="a', "character 0"),
        (" AND ".join(["name=a"] * 21), "at most 20"),
        ("name=" + "a" * 2000, "at most 2000"),
    ],
)
def test_a_wrong_filter_says_where(text, named):
    with pytest.raises(errors.InvalidFilter, match=named):
        filters.parse_filter(text, FIELDS)


@pytest.mark.parametrize(
    "text", ["a=b,", "a in b", "a in (b", "a=b c", ",", "a><b", "=b", "!", "a!"]
)
def test_a_wrong_selector_is_refused(text):
    with pytest.raises(errors.InvalidFilter):
        filters.parse_selector(text)


@pytest.mark.parametrize("text", ["size", "name down", "", "name, state"])
def test_a_wrong_order_is_refused(text):
    with pytest.raises(errors.InvalidParameter):
        filters.parse_order(text, ("name", "created_at"))
