import time

import numpy as np
import pytest

from parity.benchmark.contest import COMPILED, JAXNN, TORCH, WrongAnswerError, check_equal, compiled, contest
from parity.benchmark.timing import SETTLED, Timing, interleaved


def test_contenders_run_in_turn_forwards_then_backwards():
    calls = []

    def contender(name):
        def run():
            calls.append(name)
            finish = len(calls) + 20_000
            sum(range(finish))  # a call of some length, so that each round holds few of them

        return run

    timing = interleaved([contender("a"), contender("b")], seconds=0.01, warmup=1)
    assert timing.seconds.shape[1] == 2
    order = "".join(calls)[2:]
    rounds = ["".join(sorted(set(part), key=part.index)) for part in _parts(order, timing.seconds.shape[0])]
    assert rounds[:4] == ["ab", "ba", "ab", "ba"]


def test_a_contender_starts_when_the_threads_of_the_one_before_sleep():
    turns = []

    def contender(name):
        def run():
            began = time.perf_counter()
            if turns and turns[-1][0] != name:
                gaps.append(began - turns[-1][1])
            turns.append((name, time.perf_counter()))

        return run

    gaps = []
    interleaved([contender("a"), contender("b")], seconds=0.05, warmup=1)
    assert len(gaps) > 3
    assert min(gaps[1:]) >= SETTLED  # the first is that of the warm-up


def _parts(order, count):
    size = len(order) // count
    return [order[i * size : (i + 1) * size] for i in range(count)]


def test_the_ratio_is_the_median_of_rounds_and_survives_a_busy_machine():
    alone = np.random.default_rng(0).uniform(0.9, 1.1, (101, 2)) * [2.0, 1.0]
    busy = alone * np.linspace(1, 50, 101)[:, None]
    for seconds in (alone, busy):
        timing = Timing(seconds)
        low, high = timing.interval(0, 1)
        assert low <= timing.ratio(0, 1) <= high
        assert timing.ratio(0, 1) == pytest.approx(2.0, rel=0.05)


def test_the_interval_narrows_with_more_rounds():
    seconds = np.random.default_rng(0).lognormal(size=(1600, 2))
    few, many = (Timing(seconds[:count]).interval(0, 1) for count in (16, 1600))
    assert many[1] - many[0] < 0.3 * (few[1] - few[0])


@pytest.mark.parametrize("found", [np.full(3, 1.01), np.ones(4), np.array([1, 1, np.nan])])
def test_a_wrong_answer_is_refused_and_not_timed(found):
    with pytest.raises(WrongAnswerError, match="not timed"):
        check_equal("row", [np.ones(3)], [found])


def test_equal_answers_pass_though_rounded():
    check_equal("row", [np.ones(3)], [np.full(3, 1 + 1e-6)])


def test_work_is_counted_save_where_a_loop_hides_it():
    import jax
    import jax.numpy as jnp

    x = jnp.ones((64, 64))
    straight = compiled(lambda x: x @ x, x)
    looped = compiled(lambda x: jax.lax.fori_loop(0, 10, lambda _, y: y @ x, x), x)
    assert straight.operations == pytest.approx(2 * 64**3, rel=0.01)
    assert straight.compile_seconds > 0
    assert (looped.operations, looped.traffic) == (0, 0)


def test_a_compiler_of_torch_that_fails_is_left_out_with_a_note():
    def fails():
        raise OSError("file too short\nmore")

    program = compiled(lambda x: x + 1, np.ones(3))
    contenders = {TORCH: time.time, COMPILED: fails, JAXNN: time.time}
    result = contest(("op", "sums", "add", "forward"), contenders, program, seconds=0.01)
    assert list(result.seconds) == [TORCH, JAXNN]
    assert result.notes == ["torch.compile fails in add forward: OSError: file too short"]
