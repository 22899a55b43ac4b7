"""Parameters that are computed, at each read, from parameters of their own."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from jaxnn.functional import ArgumentError
from jaxnn.nn.container import ModuleDict
from jaxnn.nn.module import Module, children


class ParametrizationList(Module):
    """The maps whose composition gives a parameter, under ``0``, ``1``, and what the first of them is fed.

    Attributes:
        original: what is trained; ``original0``, ``original1`` and so on where the first map takes several arrays.

    Source: ``torch.nn.utils.parametrize.ParametrizationList``.
    """

    def __init__(self, parametrization: Any, array: Array, kind: type[nnx.Variable]) -> None:
        self.kind = kind
        inverse = getattr(parametrization, "right_inverse", None)
        originals = array if inverse is None else inverse(array)
        self.count = len(originals) if isinstance(originals, tuple) else None
        self.set_originals(originals)
        self.append(parametrization)

    def append(self, parametrization: Any) -> None:
        """Apply ``parametrization`` after those there are."""
        setattr(self, str(sum(1 for _ in children(self))), parametrization)

    def set_originals(self, originals: Array | tuple[Array, ...]) -> None:
        """Train from ``originals`` on."""
        arrays = originals if isinstance(originals, tuple) else (originals,)
        for name, array in zip(self._names(), arrays, strict=True):
            if hasattr(self, name):
                getattr(self, name).set_value(array)
            else:
                setattr(self, name, self.kind(array))

    def assign(self, array: Array) -> None:
        """Make ``array`` the value, through each map's ``right_inverse``."""
        originals: Any = array
        for _, parametrization in reversed(list(children(self))):
            if not hasattr(parametrization, "right_inverse"):
                raise ArgumentError(f"parametrize: {type(parametrization).__name__} has no right_inverse to assign by")
            originals = parametrization.right_inverse(originals)
        self.set_originals(originals)

    def __call__(self) -> Array:
        arrays = [getattr(self, name).get_value() for name in self._names()]
        for _, parametrization in children(self):
            arrays = [parametrization(*arrays)]  # type: ignore[operator]
        return arrays[0]

    def _names(self) -> list[str]:
        return ["original"] if self.count is None else [f"original{i}" for i in range(self.count)]


def register_parametrization(
    module: Any, tensor_name: str, parametrization: Callable[..., Any], *, unsafe: bool = False
) -> Any:
    """Compute ``module.<tensor_name>`` by ``parametrization`` at each read; ``module`` is changed and returned.

    Args:
        module: its class becomes ``Parametrized<class>``; both keep working under every transform.
        tensor_name: a parameter or buffer of ``module``. A second parametrization of it is applied after the first.
        parametrization: an ``nnx.Module`` that maps arrays to the parameter; its ``right_inverse``, where it has one,
            gives the arrays that start it.
        unsafe: do not ask that the result have the shape and dtype of what it stands for.

    Raises:
        ArgumentError: ``module`` has no such variable, or the result has another shape or dtype.

    Source: ``torch.nn.utils.parametrize.register_parametrization``.
    """
    if is_parametrized(module, tensor_name):
        getattr(module.parametrizations, tensor_name).append(parametrization)
        return module
    variable = vars(module).get(tensor_name)
    if not isinstance(variable, nnx.Variable):
        raise ArgumentError(f"register_parametrization: {type(module).__name__} has no parameter {tensor_name!r}")
    array = variable.get_value()
    computed = ParametrizationList(parametrization, array, type(variable))
    if not unsafe:
        result = computed()
        if (result.shape, result.dtype) != (array.shape, array.dtype):
            raise ArgumentError(
                f"register_parametrization: {tensor_name} must keep shape {array.shape} and dtype {array.dtype}, "
                f"got {result.shape} and {result.dtype}"
            )
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    module.parametrizations[tensor_name] = computed
    _set_class(module)
    return module


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether any parameter, or the one called ``tensor_name``, is computed.

    Source: ``torch.nn.utils.parametrize.is_parametrized``.
    """
    names = vars(module).get("parametrizations", ())
    return bool(len(names)) if tensor_name is None else tensor_name in names


def remove_parametrizations(module: Any, tensor_name: str, leave_parametrized: bool = True) -> Any:
    """Make ``module.<tensor_name>`` a plain variable again: as computed, or as it was fed to the computation.

    Raises:
        ArgumentError: the parameter is not computed, or is not to be left so but was computed from several arrays.

    Source: ``torch.nn.utils.parametrize.remove_parametrizations``.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(f"remove_parametrizations: {type(module).__name__}.{tensor_name} is not parametrized")
    computed = getattr(module.parametrizations, tensor_name)
    if not leave_parametrized and computed.count is not None:
        raise ArgumentError(
            f"remove_parametrizations: leave_parametrized must be true where {tensor_name} comes of several arrays"
        )
    array = computed() if leave_parametrized else computed.original.get_value()
    delattr(module.parametrizations, tensor_name)
    _set_class(module)
    if not is_parametrized(module):
        delattr(module, "parametrizations")
    setattr(module, tensor_name, computed.kind(jnp.asarray(array)))
    return module


def _set_class(module: Any) -> None:
    plain: type = getattr(type(module), "unparametrized", type(module))
    names = tuple(module.parametrizations.keys())
    object.__setattr__(module, "__class__", _parametrized(plain, names) if names else plain)


@cache
def _parametrized(plain: type, names: tuple[str, ...]) -> type:
    """One class for the same names: a compiled function knows a module again by its class."""
    members = {name: property(_reader(name), _writer(name)) for name in names}
    return type(plain)(f"Parametrized{plain.__name__}", (plain,), {**members, "unparametrized": plain})


def _reader(name: str) -> Callable[[Any], Array]:
    return lambda module: getattr(module.parametrizations, name)()


def _writer(name: str) -> Callable[[Any, Any], None]:
    return lambda module, array: getattr(module.parametrizations, name).assign(jnp.asarray(array))
