"""Activations as layers; the formulas stand with their functions in ``jaxnn.functional``."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Key, Num

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.nn.module import Module, RandomModule

Input = Num[ArrayLike, "*shape"]
Output = Num[Array, "*shape"]


class _Inplace(Module):
    """An activation whose only option is ``inplace``, which has no effect here."""

    def __init__(self, inplace: bool = False) -> None:
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class _Plain(Module):
    """An activation without options; arguments are accepted and ignored, as torch does."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass


class _Dim(Module):
    """A softmax along ``dim``."""

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class _Alpha(Module):
    """An activation with a scale ``alpha``."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        self.alpha = alpha
        self.inplace = inplace

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}" + _inplace(self.inplace)


class _Lambd(Module):
    """A shrinkage with half-width ``lambd``."""

    def __init__(self, lambd: float = 0.5) -> None:
        self.lambd = lambd

    def extra_repr(self) -> str:
        return str(self.lambd)


def _inplace(inplace: bool) -> str:
    return ", inplace=True" if inplace else ""


class ReLU(_Inplace):
    """Source: ``torch.nn.ReLU``; see :func:`jaxnn.functional.relu`."""

    def __call__(self, input: Input) -> Output:
        return functional.relu(input)


class ReLU6(_Inplace):
    """Source: ``torch.nn.ReLU6``; see :func:`jaxnn.functional.relu6`."""

    def __call__(self, input: Input) -> Output:
        return functional.relu6(input)


class SELU(_Inplace):
    """Source: ``torch.nn.SELU``; see :func:`jaxnn.functional.selu`."""

    def __call__(self, input: Input) -> Output:
        return functional.selu(input)


class SiLU(_Inplace):
    """Source: ``torch.nn.SiLU``; see :func:`jaxnn.functional.silu`."""

    def __call__(self, input: Input) -> Output:
        return functional.silu(input)


class Mish(_Inplace):
    """Source: ``torch.nn.Mish``; see :func:`jaxnn.functional.mish`."""

    def __call__(self, input: Input) -> Output:
        return functional.mish(input)


class Hardswish(_Inplace):
    """Source: ``torch.nn.Hardswish``; see :func:`jaxnn.functional.hardswish`."""

    def __call__(self, input: Input) -> Output:
        return functional.hardswish(input)


class Hardsigmoid(_Inplace):
    """Source: ``torch.nn.Hardsigmoid``; see :func:`jaxnn.functional.hardsigmoid`."""

    def __call__(self, input: Input) -> Output:
        return functional.hardsigmoid(input)


class Sigmoid(_Plain):
    """Source: ``torch.nn.Sigmoid``; see :func:`jaxnn.functional.sigmoid`."""

    def __call__(self, input: Input) -> Output:
        return functional.sigmoid(input)


class Tanh(_Plain):
    """Source: ``torch.nn.Tanh``; see :func:`jaxnn.functional.tanh`."""

    def __call__(self, input: Input) -> Output:
        return functional.tanh(input)


class Softsign(_Plain):
    """Source: ``torch.nn.Softsign``; see :func:`jaxnn.functional.softsign`."""

    def __call__(self, input: Input) -> Output:
        return functional.softsign(input)


class Tanhshrink(_Plain):
    """Source: ``torch.nn.Tanhshrink``; see :func:`jaxnn.functional.tanhshrink`."""

    def __call__(self, input: Input) -> Output:
        return functional.tanhshrink(input)


class LogSigmoid(_Plain):
    """Source: ``torch.nn.LogSigmoid``; see :func:`jaxnn.functional.logsigmoid`."""

    def __call__(self, input: Input) -> Output:
        return functional.logsigmoid(input)


class ELU(_Alpha):
    """Source: ``torch.nn.ELU``; see :func:`jaxnn.functional.elu`."""

    def __call__(self, input: Input) -> Output:
        return functional.elu(input, self.alpha)


class CELU(_Alpha):
    """Source: ``torch.nn.CELU``; see :func:`jaxnn.functional.celu`."""

    def __call__(self, input: Input) -> Output:
        return functional.celu(input, self.alpha)


class Hardshrink(_Lambd):
    """Source: ``torch.nn.Hardshrink``; see :func:`jaxnn.functional.hardshrink`."""

    def __call__(self, input: Input) -> Output:
        return functional.hardshrink(input, self.lambd)


class Softshrink(_Lambd):
    """Source: ``torch.nn.Softshrink``; see :func:`jaxnn.functional.softshrink`."""

    def __call__(self, input: Input) -> Output:
        return functional.softshrink(input, self.lambd)


class Softmax(_Dim):
    """Source: ``torch.nn.Softmax``; see :func:`jaxnn.functional.softmax`."""

    def __call__(self, input: Input) -> Output:
        return functional.softmax(input, self.dim)


class Softmin(_Dim):
    """Source: ``torch.nn.Softmin``; see :func:`jaxnn.functional.softmin`."""

    def __call__(self, input: Input) -> Output:
        return functional.softmin(input, self.dim)


class LogSoftmax(_Dim):
    """Source: ``torch.nn.LogSoftmax``; see :func:`jaxnn.functional.log_softmax`."""

    def __call__(self, input: Input) -> Output:
        return functional.log_softmax(input, self.dim)


class Softmax2d(_Plain):
    """Softmax over the channels of an image, ``(N, C, H, W)`` or ``(C, H, W)``. Source: ``torch.nn.Softmax2d``."""

    def __call__(self, input: Input) -> Output:
        if jnp.ndim(input) not in (3, 4):
            raise ArgumentError(f"Softmax2d: input must have 3 or 4 axes, got shape {jnp.shape(input)}")
        return functional.softmax(input, -3)


class GLU(Module):
    """Source: ``torch.nn.GLU``; see :func:`jaxnn.functional.glu`."""

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def __call__(self, input: Num[ArrayLike, "..."]) -> Num[Array, "..."]:
        return functional.glu(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class GELU(Module):
    """Source: ``torch.nn.GELU``; see :func:`jaxnn.functional.gelu`."""

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def __call__(self, input: Input) -> Output:
        return functional.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class LeakyReLU(Module):
    """Source: ``torch.nn.LeakyReLU``; see :func:`jaxnn.functional.leaky_relu`."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        self.negative_slope = negative_slope
        self.inplace = inplace

    def __call__(self, input: Input) -> Output:
        return functional.leaky_relu(input, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}" + _inplace(self.inplace)


class Hardtanh(Module):
    """Source: ``torch.nn.Hardtanh``; see :func:`jaxnn.functional.hardtanh`."""

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: float | None = None,
        max_value: float | None = None,
    ) -> None:
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise ArgumentError(f"Hardtanh: max_val must be above min_val={self.min_val}, got {self.max_val}")

    def __call__(self, input: Input) -> Output:
        return functional.hardtanh(input, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}" + _inplace(self.inplace)


class Softplus(Module):
    """Source: ``torch.nn.Softplus``; see :func:`jaxnn.functional.softplus`."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self.beta = beta
        self.threshold = threshold

    def __call__(self, input: Input) -> Output:
        return functional.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Threshold(Module):
    """Source: ``torch.nn.Threshold``; see :func:`jaxnn.functional.threshold`."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        self.threshold = threshold
        self.value = value
        self.inplace = inplace

    def __call__(self, input: Input) -> Output:
        return functional.threshold(input, self.threshold, self.value)

    def extra_repr(self) -> str:
        return f"threshold={self.threshold}, value={self.value}" + _inplace(self.inplace)


class PReLU(Module):
    """A leaky relu whose slopes are learned, one for all channels or one each.

    Attributes:
        weight: ``(num_parameters,)``, starting at ``init``.

    Source: ``torch.nn.PReLU``; see :func:`jaxnn.functional.prelu`.
    """

    def __init__(
        self,
        num_parameters: int = 1,
        init: float = 0.25,
        device: jax.Device | None = None,
        dtype: DTypeLike | None = None,
    ) -> None:
        self.num_parameters = num_parameters
        self.init = init
        self.weight = nnx.Param(jnp.full(num_parameters, init, dtype or jnp.float32, device=device))

    def __call__(self, input: Input) -> Output:
        return functional.prelu(input, self.weight[...])

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class RReLU(RandomModule):
    """A leaky relu whose slopes are drawn anew for each element in training.

    Source: ``torch.nn.RReLU``; see :func:`jaxnn.functional.rrelu`.
    """

    def __init__(
        self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False, *, rngs: nnx.Rngs | None = None
    ) -> None:
        super().__init__(rngs)
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def __call__(self, input: Input, *, key: Key[Array, ""] | None = None) -> Output:
        return functional.rrelu(input, self.lower, self.upper, self.training, key=self.drawn(key))

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + _inplace(self.inplace)
