"""Weights of given norm, of spectral norm one, and orthogonal."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Inexact

from jaxnn import functional
from jaxnn.functional import ArgumentError
from jaxnn.functional._parametrized import (
    householder_orthogonal,
    norm_except,
    power_iterations,
    skew_orthogonal,
)
from jaxnn.nn.convolution import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from jaxnn.nn.module import Buffer, Module
from jaxnn.nn.utils.parametrize import register_parametrization

Weight = Inexact[Array, "..."]


class _WeightNorm(Module):
    def __init__(self, dim: int | None = 0) -> None:
        self.dim = -1 if dim is None else dim

    def __call__(self, weight_g: Weight, weight_v: Weight) -> Weight:
        return weight_v * (weight_g / norm_except(weight_v, self.dim))

    def right_inverse(self, weight: Weight) -> tuple[Weight, Weight]:
        return norm_except(weight, self.dim), weight


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    r"""Split a weight into its length ``original0`` and its direction ``original1``.

    .. math:: w = g \frac{v}{\lVert v \rVert}

    Args:
        module: changed, and returned.
        name: which of its parameters.
        dim: the axis each of whose slices has a length of its own; None gives the whole one length.

    Source: ``torch.nn.utils.parametrizations.weight_norm``; Salimans and Kingma (2016).
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """Keeps approximate singular vectors ``_u`` and ``_v``; each read in training brings them nearer."""

    def __init__(self, weight: Weight, n_power_iterations: int, dim: int, eps: float, rngs: nnx.Rngs | None) -> None:
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(f"spectral_norm: dim must lie in [{-weight.ndim}, {weight.ndim - 1}], got {dim}")
        if n_power_iterations <= 0:
            raise ArgumentError(f"spectral_norm: n_power_iterations must be positive, got {n_power_iterations}")
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        self.use_running_average = False
        if weight.ndim > 1:
            if rngs is None:
                raise ArgumentError("spectral_norm: needs rngs to draw its first singular vectors, got None")
            matrix = self._matrix(weight)
            u, v = (
                functional.normalize(jax.random.normal(rngs.params(), (size,), weight.dtype), dim=0, eps=eps)
                for size in matrix.shape
            )
            u, v = power_iterations(matrix, u, v, 15, eps)
            self._u, self._v = nnx.BatchStat(u), nnx.BatchStat(v)

    def _matrix(self, weight: Weight) -> Weight:
        return jnp.moveaxis(weight, self.dim, 0).reshape(weight.shape[self.dim], -1)

    def __call__(self, weight: Weight) -> Weight:
        if weight.ndim == 1:
            return functional.normalize(weight, dim=0, eps=self.eps)
        matrix, u, v = self._matrix(weight), self._u.get_value(), self._v.get_value()
        if not self.use_running_average:
            u, v = power_iterations(matrix, u, v, self.n_power_iterations, self.eps)
            self._u.set_value(u)
            self._v.set_value(v)
        return weight / jnp.vdot(u, matrix @ v)

    def right_inverse(self, value: Weight) -> Weight:
        return value


def spectral_norm(
    module: Any,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    rngs: nnx.Rngs | None = None,
) -> Any:
    r"""Divide a weight by its largest singular value, as the power method knows it; a vector by its norm.

    .. math:: \bar W = \frac{W}{\sigma(W)}, \qquad \sigma(W) \approx u^H W v

    Args:
        module: changed, and returned.
        name: which of its parameters.
        n_power_iterations: steps of the power method at each read in training.
        eps: the least norm that is divided by.
        dim: the axis that stays as rows of the matrix; 1 for transposed convolutions, else 0.
        rngs: draws the first singular vectors; a parameter with one axis does without.

    Raises:
        IndexError: there is no axis ``dim``.
        ArgumentError: ``n_power_iterations`` is not positive, or ``module`` has no such parameter.

    Source: ``torch.nn.utils.parametrizations.spectral_norm``; Miyato et al. (2018).
    """
    if dim is None:
        dim = 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d | ConvTranspose3d) else 0
    made = _SpectralNorm(_weight(module, name, "spectral_norm"), n_power_iterations, dim, eps, rngs)
    return register_parametrization(module, name, made)


class _Orthogonal(Module):
    def __init__(self, weight: Weight, orthogonal_map: str, use_trivialization: bool, rngs: nnx.Rngs | None) -> None:
        self.orthogonal_map = orthogonal_map
        self.use_trivialization = use_trivialization
        if use_trivialization:
            *batch, m, n = weight.shape
            shape = (*batch, max(m, n), max(m, n))
            if m != n and rngs is None:
                raise ArgumentError("orthogonal: needs rngs to complete a weight that is not square, got None")
            # Its last columns complete what right_inverse is given.
            drawn = (
                jnp.zeros(shape, weight.dtype)
                if rngs is None
                else jax.random.normal(rngs.params(), shape, weight.dtype)
            )
            self.base = Buffer(drawn)

    def __call__(self, x: Weight) -> Weight:
        wide = x.shape[-2] < x.shape[-1]
        tall = x.mT if wide else x
        if self.orthogonal_map == "householder":
            q = householder_orthogonal(tall)
        else:
            q = skew_orthogonal(tall, self.orthogonal_map == "cayley")
        if self.use_trivialization:
            q = self.base.get_value() @ q
        return q.mT if wide else q

    def right_inverse(self, value: Weight) -> Weight:
        wide = value.shape[-2] < value.shape[-1]
        tall = value.mT if wide else value
        n, k = tall.shape[-2:]
        if not self.use_trivialization:
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    f"orthogonal: {self.orthogonal_map} cannot be inverted with use_trivialization=False"
                )
            transposed, tau = jnp.linalg.qr(tall, mode="raw")
            a = transposed.mT
            eye = jnp.eye(n, k, dtype=bool)
            signs = jnp.sign(a) * jnp.where(tau == 0, -1, 1).astype(a.dtype)[..., None, :]
            a = jnp.where(eye, signs, a)
            return a.mT if wide else a
        whole = jnp.concatenate([tall, self.base.get_value()[..., k:]], -1)
        self.base.set_value(whole if n == k and _is_orthogonal(whole) else _orthogonalized(whole))
        return jnp.broadcast_to(-jnp.eye(value.shape[-2], value.shape[-1], dtype=value.dtype), value.shape)


def _is_orthogonal(q: Weight) -> bool:
    identity = jnp.eye(q.shape[-1], dtype=q.dtype)
    eps = 10 * q.shape[-2] * float(jnp.finfo(q.dtype).eps)
    return bool(jnp.allclose(q.mT.conj() @ q, identity, atol=eps))


def _orthogonalized(x: Weight) -> Weight:
    q, r = jnp.linalg.qr(x)
    return q * jnp.sign(jnp.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


def orthogonal(
    module: Any,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
    rngs: nnx.Rngs | None = None,
) -> Any:
    r"""Keep a matrix, or each of a batch, orthogonal: unitary where it is complex.

    .. math:: Q = B \exp(A), \quad Q = B (I + A/2)(I - A/2)^{-1} \quad\text{or}\quad Q = B H_1 \cdots H_k

    Args:
        module: changed, and returned.
        name: which of its parameters.
        orthogonal_map: ``"matrix_exp"``, ``"cayley"`` or ``"householder"``; by default the first where the matrix is
            square or complex, else the last.
        use_trivialization: keep the start as the buffer ``base``, the :math:`B` of the formula, and train from the
            identity.
        rngs: completes a matrix that is not square to the square ``base``.

    Raises:
        ArgumentError: the parameter has fewer than two axes or is absent, or the map is unknown or does not take it.
        NotImplementedError: the map is not ``"householder"`` and ``use_trivialization`` is false.

    Source: ``torch.nn.utils.parametrizations.orthogonal``; Lezcano-Casado (2019).
    """
    weight = _weight(module, name, "orthogonal")
    if weight.ndim < 2:
        raise ArgumentError(f"orthogonal: {name} must have two axes or more, got shape {weight.shape}")
    is_complex = jnp.iscomplexobj(weight)
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] or is_complex else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ArgumentError(
            f"orthogonal: orthogonal_map must be 'matrix_exp', 'cayley' or 'householder', got {orthogonal_map!r}"
        )
    if is_complex and orthogonal_map == "householder":
        raise ArgumentError("orthogonal: orthogonal_map='householder' does not take a complex weight")
    made = _Orthogonal(weight, orthogonal_map, use_trivialization, rngs)
    return register_parametrization(module, name, made, unsafe=True)


def _weight(module: Any, name: str, caller: str) -> Array:
    array = getattr(module, name, None)
    if not isinstance(array, nnx.Variable | jax.Array):
        raise ArgumentError(f"{caller}: {type(module).__name__} has no parameter {name!r}")
    return array.get_value() if isinstance(array, nnx.Variable) else array
