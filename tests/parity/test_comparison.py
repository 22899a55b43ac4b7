import ml_dtypes
import numpy as np
import pytest

from parity.comparison import compare, ulp_distance

rng = np.random.default_rng(0)
TRUTH = rng.normal(size=(64, 32))
SINGLE = TRUTH.astype(np.float32)


def test_a_result_as_good_as_torchs_passes():
    ours = np.nextafter(SINGLE, np.float32(np.inf))
    row = compare("x", ours, SINGLE, TRUTH)
    assert row.passed
    assert row.ulps == pytest.approx(1.0)


def test_a_small_systematic_error_fails_though_each_element_is_close():
    row = compare("x", SINGLE * np.float32(1 + 2e-6), SINGLE, TRUTH)
    assert not row.passed
    assert "relative error 2" in row.reason


def test_one_wrong_element_fails():
    ours = SINGLE.copy()
    ours[3, 4] += 1e-4
    assert not compare("x", ours, SINGLE, TRUTH).passed


def test_torchs_own_error_is_allowed_some_times_over():
    noisy = (TRUTH * (1 + 1e-4 * rng.normal(size=TRUTH.shape))).astype(np.float32)
    ours = (TRUTH * (1 + 2e-4 * rng.normal(size=TRUTH.shape))).astype(np.float32)
    assert compare("x", ours, noisy, TRUTH).passed
    assert not compare("x", ours, SINGLE, TRUTH).passed


def test_what_rounding_the_inputs_explains_is_allowed():
    ours = (TRUTH + 1e-5).astype(np.float32)
    assert not compare("x", ours, SINGLE, TRUTH).passed
    near, far = TRUTH + 1e-5, TRUTH + 16e-5
    assert compare("x", ours, SINGLE, TRUTH, neighbours=(near, far)).passed


def test_a_jump_near_by_is_allowed_and_a_steep_slope_is_not():
    ours, jump = SINGLE.copy(), np.zeros_like(TRUTH)
    jump[3, 4] = 1e-3
    ours[3, 4] += 1e-3
    assert compare("x", ours, SINGLE, TRUTH, neighbours=(TRUTH, TRUTH + jump)).passed
    assert not compare("x", ours, SINGLE, TRUTH, neighbours=(TRUTH + jump / 16 / 10, TRUTH + jump / 10)).passed


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_must_stand_where_torchs_stand(value):
    theirs, truth = SINGLE.copy(), TRUTH.copy()
    theirs[0, 0] = truth[0, 0] = value
    assert compare("x", theirs, theirs, truth).passed
    assert not compare("x", SINGLE, theirs, truth).passed
    assert not compare("x", theirs, SINGLE, TRUTH).passed


def test_shape_and_dtype_are_part_of_the_verdict():
    assert "shape" in compare("x", SINGLE.T, SINGLE, TRUTH).reason
    assert "dtype" in compare("x", SINGLE.astype(ml_dtypes.bfloat16), SINGLE, TRUTH).reason


def test_integers_must_be_equal():
    theirs = np.arange(5)
    assert compare("x", theirs.astype(np.int32), theirs, theirs).passed
    assert compare("x", theirs.astype(np.int32) + 1, theirs, theirs).reason == "5 of 5 values differ"


def test_all_zero_truth_takes_no_division():
    zero = np.zeros(3, np.float32)
    assert compare("x", zero, zero, np.zeros(3)).passed
    assert not compare("x", zero + 1e-9, zero, np.zeros(3)).passed


def test_ulps_of_cancelled_elements_are_measured_at_the_scale_of_the_tensor():
    a, b = np.array([1.0, 1e-8]), np.array([1.0, 2e-8])
    assert ulp_distance(a, b, 2.0**-23) < 0.2


def test_complex_values_are_compared_by_both_parts():
    theirs = (SINGLE + 1j * SINGLE).astype(np.complex64)
    truth = TRUTH + 1j * TRUTH
    assert compare("x", theirs, theirs, truth).passed
    assert not compare("x", theirs.conj(), theirs, truth).passed
