"""Restore or compute: what was measured decides."""

import random

import pytest
from reprise.engines.crossover import TRIED_ANYWAY, Crossover


def measured(restore: float, setup: float, prefill: float, noise: float = 0.0) -> Crossover:
    """A machine: `restore` and `prefill` seconds a token, `setup` seconds for each restore."""
    draw = random.Random(1)
    crossover = Crossover()
    for tokens in [64, 512, 2048, 128, 4096, 1024] * 4:
        factor = 1 + draw.uniform(-noise, noise)
        crossover.note_restore(tokens, (setup + restore * tokens) * factor)
        crossover.note_prefill(tokens, prefill * tokens * factor)
    return crossover


def test_before_both_are_known_every_prefix_is_restored() -> None:
    crossover = Crossover()
    assert crossover.pays(16)
    crossover.note_restore(1000, 5.0)
    assert crossover.pays(16)
    assert crossover.tokens() is None
    crossover.note_prefill(1000, 0.1)
    assert not crossover.pays(16)


def test_the_crossover_is_where_setup_and_rate_meet_the_prefill() -> None:
    # 20 ms of setup against 10 us a token saved: 2,000 tokens.
    crossover = measured(restore=10e-6, setup=20e-3, prefill=20e-6)
    assert crossover.tokens() == pytest.approx(2000, rel=0.01)
    assert not crossover.pays(1000)
    assert crossover.pays(3000)


def test_noise_moves_it_little() -> None:
    crossover = measured(restore=10e-6, setup=20e-3, prefill=20e-6, noise=0.1)
    assert crossover.tokens() == pytest.approx(2000, rel=0.4)


def test_where_restoring_never_pays_one_in_many_is_tried() -> None:
    crossover = measured(restore=50e-6, setup=1e-3, prefill=20e-6)
    assert crossover.tokens() is None
    restored = [crossover.pays(4096) for _ in range(10 * TRIED_ANYWAY)]
    assert sum(restored) == 10


def test_what_changed_is_noticed() -> None:
    crossover = measured(restore=50e-6, setup=1e-3, prefill=20e-6)
    for tokens in [64, 512, 2048, 128, 4096, 1024] * 20:
        crossover.note_restore(tokens, 1e-3 + 1e-6 * tokens)
    assert crossover.pays(4096)


def test_one_length_alone_is_a_rate() -> None:
    crossover = Crossover()
    for _ in range(5):
        crossover.note_restore(1000, 0.010)
        crossover.note_prefill(1000, 0.020)
    assert crossover.pays(100)
    assert crossover.tokens() == 1


def test_nothing_restored_tells_nothing() -> None:
    crossover = Crossover()
    crossover.note_restore(0, 1.0)
    crossover.note_prefill(0, 1.0)
    assert crossover.pays(1)
