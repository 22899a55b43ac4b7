"""Products of matrices and what is solved with them."""

from parity.porting.operators.expression import ATOM, PRODUCT, SUM, Expression, several
from parity.porting.operators.operation import Operation, Tensor
from parity.porting.operators.reduction import vector_norm
from parity.porting.operators.registry import register_operator


@register_operator("aten.matmul", "aten.mm", "aten.bmm", "aten.mv", "aten.linalg_matmul")
def _matmul(op: Operation) -> Expression:
    left, right = op.arguments.values()
    return op.binary("@", left, right, PRODUCT)


@register_operator("aten.dot", "aten.inner", "aten.outer", "aten.kron", "aten.vdot", "aten.ger")
def _product(op: Operation) -> Expression:
    left, right = op.arguments.values()
    name = op.name.split(".")[1]
    return op.call(f"jnp.{'outer' if name == 'ger' else name}", left, right)


@register_operator("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv")
def _add_product(op: Operation) -> Expression:
    added, left, right = list(op.arguments.values())[:3]
    product = op.binary("@", left, right, PRODUCT)
    if op.alpha != 1:
        product = op.binary("*", op.alpha, product, PRODUCT)
    if op.beta == 0:
        return product
    if "addbmm" in op.name and "baddbmm" not in op.name:
        product = op.method(product, "sum", 0)
    if op.beta != 1:
        added = op.binary("*", op.beta, added, PRODUCT)
    return op.binary("+", added, product, SUM)


@register_operator("aten.einsum")
def _einsum(op: Operation) -> Expression:
    op.arguments.get("path")  # which products come first: XLA finds one of its own
    operands = Expression(
        ", ".join(x.text for x in op.tensors), ATOM, frozenset().union(*(x.names for x in op.tensors))
    )
    return op.call("jnp.einsum", op.equation.replace(" ", ""), operands)


@register_operator("aten.tensordot")
def _tensordot(op: Operation) -> Expression:
    return op.call("jnp.tensordot", op.arguments["self"], op.other, (list(op.dims_self), list(op.dims_other)))


@register_operator("aten.cross", "aten.linalg_cross")
def _cross(op: Operation) -> Expression:
    dim = op.dim
    if dim is None:
        dim = next(i for i, size in enumerate(op.output.shape) if size == 3)
    return op.call("jnp.cross", op.arguments["self"], op.other, axis=dim)


@register_operator("aten.trace")
def _trace(op: Operation) -> Expression:
    return op.call("jnp.trace", op.arguments["self"])


@register_operator("aten.cdist")
def _cdist(op: Operation) -> Expression:
    left, right = op.x1, op.x2
    difference = op.binary("-", _behind(left, "..., :, None, :"), _behind(right, "..., None, :, :"), SUM)
    return vector_norm(op, difference, op.p, {"axis": -1})


@register_operator("aten.pdist")
def _pdist(op: Operation) -> Expression:
    operand = op.arguments["self"]
    pairs = op.call("jnp.triu_indices", operand.shape[0], 1)
    first, second = (
        Expression(f"{operand.within(ATOM)}[{pairs.text}[{i}]]", ATOM, operand.names | pairs.names) for i in range(2)
    )
    return vector_norm(op, op.binary("-", first, second, SUM), op.p, {"axis": -1})


def _behind(operand: Tensor, index: str) -> Expression:
    return Expression(f"{operand.within(ATOM)}[{index}]", ATOM, operand.names)


@register_operator(
    "aten.linalg_inv", "aten.inverse", "aten.linalg_det", "aten.det", "aten.linalg_cholesky",
    "aten.linalg_eigh", "aten.linalg_slogdet", "aten.slogdet",
    "aten.linalg_matrix_power", "aten.matrix_exp", "aten.linalg_matrix_exp", "aten.cholesky",
    "aten.linalg_eig", "aten.linalg_eigvals", "aten.linalg_eigvalsh", "aten.linalg_svdvals", "aten.linalg_cond",
)  # fmt: skip
def _linalg(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("linalg_")
    if name == "matrix_exp":
        return op.call("jax.scipy.linalg.expm", *list(op.arguments.values())[:1])
    if name == "cholesky":
        return op.call("jnp.linalg.cholesky", op.arguments["self"], upper=op.upper or None)
    name = {"inverse": "inv"}.get(name, name)
    if name in ("eigh", "eigvalsh"):  # of one triangle, whatever the other holds
        triangle = None if op.arguments.get("UPLO", "L") == "L" else op.UPLO
        operand = op.arguments["self" if "self" in op.arguments else "A"]
        return op.call(f"jnp.linalg.{name}", operand, UPLO=triangle, symmetrize_input=False)
    count = 2 if name in ("matrix_power", "cond") else 1
    return op.call(f"jnp.linalg.{name}", *(op.arguments[key] for key in list(op.arguments)[:count]))


@register_operator("aten.linalg_solve", "aten.linalg_solve_ex")
def _solve(op: Operation) -> Expression:
    if "_ex" in op.name and (op.check_errors or op.is_read(1)):
        left = None if op.left else False
        return op.call("F.solve_ex", op.A, op.B, left=left, check_errors=op.check_errors or None)
    matrix, right = op.A, op.B
    vector = right.ndim == 1 or (right.ndim == matrix.ndim - 1 and right.shape == matrix.shape[:-1])
    if not op.left:  # XA = B is AᵀXᵀ = Bᵀ
        matrix, right = _transposed(matrix), right if vector else _transposed(right)
    if vector and right.ndim > 1:
        right = Expression(f"{right.within(ATOM)}[..., None]", ATOM, right.names)
    found = op.call("jnp.linalg.solve", matrix, right)
    if vector and op.B.ndim > 1:
        found = Expression(f"{found.text}[..., 0]", ATOM, found.names)
    elif not (op.left or vector):
        found = _transposed(found)
    return several(found, found) if "_ex" in op.name else found


def _transposed(operand: Expression) -> Expression:
    return Expression(f"{operand.within(ATOM)}.mT", ATOM, operand.names)


@register_operator("aten.linalg_inv_ex", "aten.linalg_cholesky_ex")
def _unchecked(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("linalg_")
    operand, upper = next(iter(op.arguments.values())), op.arguments.get("upper") or None
    if op.check_errors or op.is_read(1):
        return op.call(f"F.{name}", operand, upper=upper, check_errors=op.check_errors or None)
    return several(*[op.call(f"jnp.linalg.{name.removesuffix('_ex')}", operand, upper=upper)] * 2)


@register_operator("aten.linalg_qr")
def _qr(op: Operation) -> Expression:
    mode = op.arguments.get("mode", "reduced")
    found = op.call("jnp.linalg.qr", op.A, mode=None if mode == "reduced" else mode)
    return several(op.call("jnp.zeros", (0,)), found) if mode == "r" else found


@register_operator("aten.linalg_pinv", "aten.linalg_matrix_rank")
def _ranked(op: Operation) -> Expression:
    operand = op.arguments["self" if "self" in op.arguments else "input"]
    least, relative = op.arguments.get("atol", op.arguments.get("tol")), op.arguments.get("rtol")
    relative = op.arguments.get("rcond", relative)
    given, other, symbol = (relative, least, "/") if "pinv" in op.name else (least, relative, "*")
    if other is not None:  # JAX's pinv knows the relative tolerance only, its matrix_rank the absolute one
        greatest = op.call("jnp.linalg.norm", operand, 2, axis=(-2, -1))
        other = op.binary(symbol, other, greatest, PRODUCT)
        given = other if given is None else op.call("jnp.maximum", given, other)
    hermitian = op.arguments.get("hermitian") or None
    return op.call(f"jnp.linalg.{op.name.split('.')[1][7:]}", operand, rtol=given, hermitian=hermitian)


@register_operator("aten.linalg_multi_dot")
def _multi_dot(op: Operation) -> Expression:
    names = frozenset().union(*(x.names for x in op.tensors))
    return op.call("jnp.linalg.multi_dot", Expression(f"[{', '.join(x.text for x in op.tensors)}]", ATOM, names))


@register_operator("aten.linalg_lu_factor", "aten.linalg_lu_factor_ex", "aten._lu_with_info")
def _lu_factor(op: Operation) -> Expression:
    if not op.pivot:
        raise NotImplementedError("an LU decomposition that does not exchange rows")
    function = "F.lu_factor" if len(op.output) == 2 else "F.lu_factor_ex"
    return op.call(function, next(iter(op.arguments.values())), check_errors=op.arguments.get("check_errors") or None)


@register_operator("aten.linalg_lu_solve", "aten.lu_solve")
def _lu_solve(op: Operation) -> Expression:
    old = "LU_data" in op.arguments
    factors, pivots = (op.LU_data, op.LU_pivots) if old else (op.LU, op.pivots)
    right, shape = op.arguments["self"] if old else op.B, list(op.output.shape)
    left, adjoint = op.arguments.get("left", True), op.arguments.get("adjoint", False)
    if not left and adjoint and factors.dtype.is_complex:
        raise NotImplementedError("lu_solve of the adjoint from the right")
    if list(right.shape) != shape:
        right = op.call("jnp.broadcast_to", right, shape)
    if list(factors.shape[:-2]) != shape[:-2]:
        factors = op.call("jnp.broadcast_to", factors, [*shape[:-2], *factors.shape[-2:]])
        pivots = op.call("jnp.broadcast_to", pivots, [*shape[:-2], pivots.shape[-1]])
    given = (factors, op.binary("-", pivots, 1, SUM))
    if left:
        return op.call("jax.scipy.linalg.lu_solve", given, right, trans=2 if adjoint else None)
    return _transposed(op.call("jax.scipy.linalg.lu_solve", given, _transposed(right), trans=None if adjoint else 1))


@register_operator("aten.lu_unpack")
def _lu_unpack(op: Operation) -> Expression:
    left_out = {key: False for key in ("unpack_data", "unpack_pivots") if not op.arguments[key]}
    return op.call("F.lu_unpack", op.LU_data, op.LU_pivots, **left_out)


@register_operator("aten.linalg_householder_product", "aten.linalg_tensorsolve", "aten.linalg_tensorinv")
def _of_linalg(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("linalg_")
    if name == "householder_product":
        return op.call("jax.lax.linalg.householder_product", op.input, op.tau)
    if name == "tensorinv":
        return op.call("jnp.linalg.tensorinv", op.arguments["self"], op.ind)
    return op.call("jnp.linalg.tensorsolve", op.arguments["self"], op.other, axes=op.dims)


@register_operator("aten.vander")
def _vander(op: Operation) -> Expression:
    return op.call("jnp.vander", op.x, N=op.N, increasing=op.increasing or None)


@register_operator("aten.linalg_svd", "aten.svd")
def _svd(op: Operation) -> Expression:
    operand = op.arguments.get("A", op.arguments.get("self"))
    whole = op.full_matrices if "linalg" in op.name else not op.some
    if op.arguments.get("compute_uv") is False:
        raise NotImplementedError("svd without its vectors")
    found = op.call("jnp.linalg.svd", operand, full_matrices=whole)
    if "linalg" in op.name:
        return found
    left, values, right = (Expression(f"{found.text}[{i}]", ATOM, found.names) for i in range(3))
    return several(left, values, Expression(f"{right.text}.mT.conj()", ATOM, right.names))


@register_operator("aten.linalg_solve_triangular")
def _solve_triangular(op: Operation) -> Expression:
    operand, right, lower = op.arguments["self"], op.B, not op.upper
    if not op.left:  # xA = b is Aᵀxᵀ = bᵀ
        operand, right, lower = _transposed(operand), _transposed(right), not lower
    found = op.call(
        "jax.scipy.linalg.solve_triangular", operand, right, lower=lower or None,
        unit_diagonal=op.unitriangular or None,
    )  # fmt: skip
    return found if op.left else _transposed(found)


@register_operator("aten.cholesky_solve", "aten.cholesky_inverse")
def _cholesky_solve(op: Operation) -> Expression:
    factor = op.arguments["input2" if "solve" in op.name else "self"]
    right = op.arguments["self"] if "solve" in op.name else op.call("jnp.eye", factor.shape[-1])
    if factor.ndim > 2:
        right = op.call("jnp.broadcast_to", right, list(op.output.shape))
    return op.call("jax.scipy.linalg.cho_solve", (factor, not op.upper), right)


@register_operator("aten.linalg_lu")
def _lu(op: Operation) -> Expression:
    if not op.pivot:
        raise NotImplementedError("an LU decomposition that does not exchange rows")
    if op.A.ndim > 3:
        raise NotImplementedError("LU decompositions along several axes")
    return op.call("jax.vmap(jax.scipy.linalg.lu)" if op.A.ndim == 3 else "jax.scipy.linalg.lu", op.A)


@register_operator("aten.block_diag")
def _block_diag(op: Operation) -> Expression:
    names = frozenset().union(*(x.names for x in op.tensors))
    blocks = Expression(", ".join(x.text for x in op.tensors), ATOM, names)
    return op.call("jax.scipy.linalg.block_diag", blocks)


@register_operator("aten.logdet")
def _logdet(op: Operation) -> Expression:
    found = op.call("jnp.linalg.slogdet", op.arguments["self"])
    text = f"jnp.where({found.text}.sign < 0, jnp.nan, {found.text}.logabsdet)"
    return Expression(text, ATOM, found.names)
