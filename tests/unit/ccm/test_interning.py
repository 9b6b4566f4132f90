"""Equal values are kept once, and what can't be shared is left as it is."""

from __future__ import annotations

from ccm import interning


def test_the_first_of_equal_values_stands_for_all():
    pool = interning.Pool()
    first, second = ("a", 1), ("a", int("1"))
    assert pool.one(first) is pool.one(second) is first


def test_what_has_a_dictionary_in_it_stays_itself():
    value = ({},)
    assert interning.Pool().one(value) is value


def test_pairs_are_shared_whatever_their_order():
    pool = interning.Pool()
    first = pool.pairs({"a": "1", "b": "2"})
    assert pool.pairs({"b": "2", "a": "1"}) is first == {"a": "1", "b": "2"}
    assert pool.pairs(None) is None


def test_the_pool_is_bounded():
    pool = interning.Pool(most=10)
    for number in range(1000):
        assert pool.one(str(number)) == str(number)
        assert len(pool._kept) <= 10
