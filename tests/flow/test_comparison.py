"""Results of cards against one card's: bits, roundings, infinities, and what cannot be compared."""

import ml_dtypes
import numpy as np
import pytest

from distinfer_lab.errors import ContextError
from distinfer_lab.flow import compare
from distinfer_lab.net import Tensor


def test_equal_bits_are_said_to_be():
    """Of arrays and of Tensors, one or several, NaN and infinities included."""
    values = np.array([1.0, np.nan, -np.inf, 0.0], np.float32)
    assert repr(compare(Tensor(values), values.copy())) == "equal to one card\n  [4] float32: bit for bit"
    assert compare((values, values[:2]), [values, values[:2]]).ok


def test_rounding_is_allowed_and_more_is_not():
    """1e-5 of the largest value; the largest difference is reported."""
    expected = np.array([100.0, 1.0], np.float32)
    close = compare(expected + np.float32(0.0005), expected)
    assert close.ok
    assert not close.outputs[0].bitwise
    far = compare(expected + np.float32(0.01), expected)
    assert not far.ok
    np.testing.assert_allclose(far.outputs[0].largest, 0.01, rtol=1e-3)
    assert repr(far).startswith(
        "NOT equal to one card\n  [2] float32: largest difference 1.00e-02 (allowed 1.00e-03)"
    )


def test_an_infinity_or_a_nan_of_one_side_is_no_rounding():
    """Whatever the other values are."""
    expected = np.array([1e9, 1.0], np.float32)
    for wrong in (np.inf, np.nan):
        assert not compare(np.array([1e9, wrong], np.float32), expected).ok


def test_integers_must_be_equal_and_narrow_floats_have_their_own_rounding():
    """A token number is right or wrong; bfloat16 keeps 8 bits."""
    assert not compare(np.array([1000000, 2]), np.array([1000001, 2])).ok
    values = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    assert compare(values, (values.astype(np.float32) * 1.004).astype(ml_dtypes.bfloat16)).ok
    assert not compare(values, (values.astype(np.float32) * 1.1).astype(ml_dtypes.bfloat16)).ok


def test_other_shapes_are_refused():
    """The text has both."""
    with pytest.raises(ContextError, match=r"shapes \[\(2,\)\] and \[\(3,\)\] cannot be compared"):
        compare(np.ones(2), np.ones(3))
