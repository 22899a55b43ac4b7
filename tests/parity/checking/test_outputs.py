import numpy as np
import pytest

from parity.checking.diagnosis.outputs import relation


@pytest.mark.parametrize(
    ("factor", "told"), [(8.0, "times 8"), (0.25, "times 0.25"), (-1.0, "times -1"), (1.009, None), (0.0, "is zero")]
)
def test_of_a_single_number_only_whole_multiples_are_told(factor, told):
    found = relation({"loss": np.array(factor * 0.7)}, {"loss": np.array(0.7)})
    assert (found is None) if told is None else (found is not None and told in found[1])


def test_of_many_numbers_any_factor_is_told():
    theirs = np.random.default_rng(0).normal(size=9)
    assert relation({"output": 1.009 * theirs}, {"output": theirs}) == ("scale", "output is torch's times 1.009")
