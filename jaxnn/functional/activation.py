"""Smooth activations, and those that are smooth on either side of zero."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact, Num, Shaped

from jaxnn.functional._argument import ArgumentError
from jaxnn.functional._input import checked_axis, default_float, floating, magnitude, widened

# Klambauer et al. (2017): the two constants that make zero mean and unit variance a fixed point.
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def elu(input: Float[ArrayLike, "*shape"], alpha: float = 1.0, inplace: bool = False) -> Float[Array, "*shape"]:
    r"""Exponential approach to ``-alpha`` for what is negative.

    .. math:: y = x \text{ if } x > 0, \text{ else } \alpha (e^x - 1)

    Args:
        input: any shape. The derivative at 0 is ``alpha``.
        alpha: minus the limit at minus infinity.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.elu``; Clevert et al. (2016).
    """
    return _exponential_linear("elu", input, 1.0, alpha, 1.0)


def selu(input: Float[ArrayLike, "*shape"], inplace: bool = False) -> Float[Array, "*shape"]:
    r"""Scaled :func:`elu`, under which activations tend to zero mean and unit variance.

    .. math:: y = s\,x \text{ if } x > 0, \text{ else } s\,\alpha (e^x - 1),
        \quad \alpha \approx 1.6733, \quad s \approx 1.0507

    Args:
        input: any shape. The derivative at 0 is :math:`s\,\alpha`.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.selu``; Klambauer et al. (2017).
    """
    return _exponential_linear("selu", input, _SELU_SCALE, _SELU_ALPHA, 1.0)


def celu(input: Float[ArrayLike, "*shape"], alpha: float = 1.0, inplace: bool = False) -> Float[Array, "*shape"]:
    r"""As :func:`elu`, but with slope 1 at zero whatever ``alpha``.

    .. math:: y = x \text{ if } x > 0, \text{ else } \alpha (e^{x / \alpha} - 1)

    Args:
        input: any shape.
        alpha: minus the limit at minus infinity; not zero.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.
        ArgumentError: ``alpha`` is zero.

    Source: ``torch.nn.functional.celu``; Barron (2017).
    """
    if alpha == 0:
        raise ArgumentError(f"celu: alpha must not be zero, got {alpha}")
    return _exponential_linear("celu", input, 1.0, alpha, 1.0 / alpha)


def gelu(input: Float[ArrayLike, "*shape"], approximate: str = "none") -> Float[Array, "*shape"]:
    r"""The input times the probability that a standard normal variable stays below it.

    .. math:: y = x\,\Phi(x), \quad \text{or } y = \tfrac{x}{2}
        \left(1 + \tanh\left(\sqrt{2 / \pi}\,(x + 0.044715\,x^3)\right)\right)

    Args:
        input: any shape.
        approximate: ``"none"`` for the first formula, ``"tanh"`` for the second.

    Raises:
        ArgumentError: ``approximate`` is neither.
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.gelu``; Hendrycks and Gimpel (2016).
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    input = floating("gelu", input)
    x = widened(input)
    if approximate == "none":
        bounded = lax.erf(x * math.sqrt(0.5))
    else:
        bounded = jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))
    return (0.5 * x * (1 + bounded)).astype(input.dtype)


def silu(input: Inexact[ArrayLike, "*shape"], inplace: bool = False) -> Inexact[Array, "*shape"]:
    r"""The input times its :func:`sigmoid`.

    .. math:: y = \frac{x}{1 + e^{-x}}

    Args:
        input: any shape; complex too.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is neither floating point nor complex.

    Source: ``torch.nn.functional.silu``; Hendrycks and Gimpel (2016), Elfwing et al. (2017).
    """
    input = floating("silu", input, complex_too=True)
    x = widened(input)
    return (x * _sigmoid(x)).astype(input.dtype)


def mish(input: Float[ArrayLike, "*shape"], inplace: bool = False) -> Float[Array, "*shape"]:
    r"""The input times the hyperbolic tangent of its :func:`softplus`.

    .. math:: y = x \tanh(\log(1 + e^x))

    Args:
        input: any shape.
        inplace: accepted for torch's sake; without effect.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.mish``; Misra (2019).
    """
    input = floating("mish", input)
    x = widened(input)
    # tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), which is 1 in float64 from x = 20 on.
    e = jnp.exp(jnp.where(x > 20, 20, x))
    n = e * (e + 2)
    return (x * (n / (n + 2))).astype(input.dtype)


def softplus(
    input: Float[ArrayLike, "*shape"], beta: int | float = 1, threshold: int | float = 20
) -> Float[Array, "*shape"]:
    r"""Smooth bend from 0 into the identity.

    .. math:: y = \tfrac1\beta \log(1 + e^{\beta x})

    Args:
        input: any shape.
        beta: how sharp the bend is.
        threshold: where :math:`\beta x` exceeds it, :math:`y = x`.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.softplus``; Dugas et al. (2001).
    """
    input = floating("softplus", input)
    x = widened(input)
    linear = x * beta > threshold
    bend = _softplus(jnp.where(linear, 0, x) * beta) / beta
    return jnp.where(linear, x, bend).astype(input.dtype)


def logsigmoid(input: Float[ArrayLike, "*shape"]) -> Float[Array, "*shape"]:
    r"""Logarithm of the :func:`sigmoid`, without its underflow.

    .. math:: y = -\log(1 + e^{-x})

    Args:
        input: any shape.

    Raises:
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.logsigmoid``.
    """
    input = floating("logsigmoid", input)
    return (-_softplus(-widened(input))).astype(input.dtype)


def sigmoid(input: Shaped[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""Logistic function.

    .. math:: y = \frac{1}{1 + e^{-x}}

    Args:
        input: any shape; complex too, and integers and booleans, which give float32.

    Source: ``torch.nn.functional.sigmoid``.
    """
    x = default_float(jnp.asarray(input))
    return _sigmoid(widened(x)).astype(x.dtype)


def tanh(input: Shaped[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""Hyperbolic tangent.

    .. math:: y = \frac{e^x - e^{-x}}{e^x + e^{-x}}

    Args:
        input: any shape; complex too, and integers and booleans, which give float32.

    Source: ``torch.nn.functional.tanh``.
    """
    x = default_float(jnp.asarray(input))
    return jnp.tanh(widened(x)).astype(x.dtype)


def tanhshrink(input: Num[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""The input less its hyperbolic tangent.

    .. math:: y = x - \tanh x

    Args:
        input: any shape; complex too, and integers, which give float32.

    Raises:
        ArgumentError: ``input`` is boolean.

    Source: ``torch.nn.functional.tanhshrink``.
    """
    input = jnp.asarray(input)
    if input.dtype == jnp.bool_:
        raise ArgumentError(f"tanhshrink: input must not be boolean, got {input.dtype}")
    x = default_float(input)
    wide = widened(x)
    return (wide - jnp.tanh(wide)).astype(x.dtype)


def softsign(input: Num[ArrayLike, "*shape"]) -> Inexact[Array, "*shape"]:
    r"""Slow approach to -1 and 1.

    .. math:: y = \frac{x}{1 + |x|}

    Args:
        input: any shape; complex too, and integers, which give float32.

    Raises:
        NotImplementedError: ``input`` is boolean.

    Source: ``torch.nn.functional.softsign``.
    """
    input = jnp.asarray(input)
    if input.dtype == jnp.bool_:
        raise NotImplementedError(f"softsign: input must be a number, got {input.dtype}")
    if not jnp.issubdtype(input.dtype, jnp.inexact):
        # Torch adds before it converts, so that the largest integers wrap round.
        return default_float(input) / default_float(jnp.abs(input) + 1)
    x = widened(input)
    return (x / (magnitude(x) + 1).astype(x.dtype)).astype(input.dtype)


def glu(input: Float[ArrayLike, "*shape"], dim: int = -1) -> Float[Array, "..."]:
    r"""One half of an axis, gated by the :func:`sigmoid` of the other.

    .. math:: y = a\,\sigma(b), \quad x = [a, b]

    Args:
        input: at least one axis; ``dim`` of even size.
        dim: the axis that is halved.

    Returns:
        As ``input``, with half the size along ``dim``.

    Raises:
        ArgumentError: ``input`` has no axis, or ``dim`` is of odd size.
        IndexError: ``input`` has no axis ``dim``.
        NotImplementedError: ``input`` is not floating point.

    Source: ``torch.nn.functional.glu``; Dauphin et al. (2017).
    """
    input = floating("glu", input)
    if input.ndim == 0:
        raise ArgumentError("glu: input must have an axis to halve, got a scalar")
    axis = checked_axis("glu", dim, input.ndim)
    if input.shape[axis] % 2:
        raise ArgumentError(f"glu: axis {dim} of input must have an even size, got shape {input.shape}")
    half, gate = jnp.split(widened(input), 2, axis)
    return (half * _sigmoid(gate)).astype(input.dtype)


def _exponential_linear(
    name: str, input: Float[ArrayLike, "*shape"], scale: float, alpha: float, rate: float
) -> Float[Array, "*shape"]:
    input = floating(name, input)
    x = widened(input)
    positive = x > 0
    # The inner selection keeps exp from overflowing, whose derivative would turn the unused branch into NaN.
    negative = scale * alpha * _expm1(jnp.where(positive, 0, x) * rate)
    return jnp.where(positive, x * scale, negative).astype(input.dtype)


@jax.custom_jvp
def _expm1(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # A series around zero, beyond it the difference itself: two units in the last place at the most, where XLA's own
    # expm1 is off by five, in half the time. Of the series less than 2^-28, in float64 2^-59, of the value is dropped.
    series = jnp.zeros_like(x)
    for k in reversed(range(1, 10 if x.dtype == jnp.float32 else 17)):
        series = series * x + 1 / math.factorial(k)
    return jnp.where(jnp.abs(x) < 0.6, x * series, jnp.exp(x) - 1)


@_expm1.defjvp
def _expm1_jvp(primals: tuple, tangents: tuple) -> tuple:
    # JAX's own derivative, expm1(x) + 1, cancels where x is well below zero. The selection leaves the second derivative
    # at zero to the straight piece, as torch does.
    (x,), (tangent,) = primals, tangents
    return _expm1(x), tangent * jnp.exp(jnp.where(x == 0, 0, x))


def _sigmoid(x: Inexact[Array, "*shape"]) -> Inexact[Array, "*shape"]:
    return lax.logistic(x) if jnp.iscomplexobj(x) else _real_sigmoid(x)


@jax.custom_jvp
def _real_sigmoid(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # The selection changes no value; a loop that holds one XLA vectorizes on CPU, and takes half the time.
    underflow = math.log(jnp.finfo(x.dtype).smallest_subnormal) - 1
    return jnp.where(x < underflow, 0, 1 / (1 + jnp.exp(-x)))


@_real_sigmoid.defjvp
def _real_sigmoid_jvp(primals: tuple, tangents: tuple) -> tuple:
    (x,), (tangent,) = primals, tangents
    output = _real_sigmoid(x)
    return output, tangent * (output * (1 - output))


@jax.custom_jvp
def _softplus(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    # log(1 + e) = 2 artanh(s), s = e / (2 + e) <= 1/3, as a series: a third of the time of XLA's log1p.
    e = jnp.exp(-jnp.abs(x))
    s = e / (2 + e)
    series = jnp.zeros_like(s)
    for k in reversed(range(8 if x.dtype == jnp.float32 else 17)):
        series = series * (s * s) + 1 / (2 * k + 1)
    return jnp.maximum(x, 0) + 2 * s * series


@_softplus.defjvp
def _softplus_jvp(primals: tuple, tangents: tuple) -> tuple:
    # By hand because of the kinks of the maximum and the absolute value at 0.
    (x,), (tangent,) = primals, tangents
    return _softplus(x), tangent * _sigmoid(x)


elu_ = elu
selu_ = selu
celu_ = celu
