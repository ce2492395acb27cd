"""Seeds: named, independent of each other, and the same for ever."""

from __future__ import annotations

import numpy as np

from synthct.seeds import derive_seed, generator


def test_seeds_of_released_datasets_never_change() -> None:
    assert derive_seed(7, "mask", "hosts", "case_00004", "tumors", "0") == 253305725177918252
    draws = generator(7, "mask", "hosts").integers(0, 1000, 5)
    assert draws.tolist() == [171, 623, 242, 150, 602]


def test_seeds_are_63_bit_and_differ_by_seed_and_names() -> None:
    seeds = {derive_seed(seed, "noise", f"s{n}") for seed in range(20) for n in range(500)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_names_are_kept_apart() -> None:
    names = [("ab", "c"), ("a", "bc"), ("abc",), ("abc", ""), ("", "abc"), ("c", "ab"), ()]
    assert len({derive_seed(0, *name) for name in names}) == len(names)
    assert derive_seed(1, "2") != derive_seed(12)


def test_streams_do_not_depend_on_order_or_on_numpys_global_state() -> None:
    first = generator(3, "mask", "a").random(4)
    np.random.seed(1)
    generator(3, "mask", "b").random(100)
    assert np.array_equal(generator(3, "mask", "a").random(4), first)
    assert not np.array_equal(generator(3, "mask", "b").random(4), first)


def test_neighbouring_streams_are_not_correlated() -> None:
    one, two = (generator(0, "noise", name).normal(size=20_000) for name in ("s1", "s2"))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
