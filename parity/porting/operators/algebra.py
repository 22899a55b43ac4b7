"""Products of matrices and what is solved with them."""

from parity.porting.operators.expression import ATOM, PRODUCT, SUM, Expression, several
from parity.porting.operators.operation import Operation, Tensor, only_first
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
    "aten.linalg_inv", "aten.inverse", "aten.linalg_det", "aten.det", "aten.linalg_solve", "aten.linalg_cholesky",
    "aten.linalg_eigh", "aten.linalg_qr", "aten.linalg_slogdet", "aten.slogdet",
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
    count = 2 if name in ("solve", "matrix_power", "cond") else 1
    return op.call(f"jnp.linalg.{name}", *(op.arguments[key] for key in list(op.arguments)[:count]))


@register_operator("aten.linalg_inv_ex", "aten.linalg_cholesky_ex", "aten.linalg_solve_ex")
def _unchecked(op: Operation) -> Expression:
    name = op.name.split(".")[1].removeprefix("linalg_").removesuffix("_ex")
    if op.arguments.get("left", True) is False or op.arguments.get("check_errors"):
        raise NotImplementedError(f"{name} from the right, or of which the errors are checked")
    operands = [x for x in op.arguments.values() if isinstance(x, Tensor)]
    return only_first(
        op, op.call(f"jnp.linalg.{name}", *operands, upper=op.arguments.get("upper") or None), "what failed"
    )


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


@register_operator("aten.linalg_lu_factor")
def _lu_factor(op: Operation) -> Expression:
    if not op.pivot:
        raise NotImplementedError("an LU decomposition that does not exchange rows")
    both = op.call("jax.scipy.linalg.lu_factor", op.A)
    factors, pivots = (Expression(f"{both.text}[{i}]", ATOM, both.names) for i in range(2))
    return several(factors, op.binary("+", pivots, 1, SUM))  # torch counts rows from one


@register_operator("aten.linalg_lu_solve", "aten.lu_solve")
def _lu_solve(op: Operation) -> Expression:
    if op.arguments.get("left", True) is False or op.arguments.get("adjoint"):
        raise NotImplementedError("lu_solve from the right, or of the adjoint")
    old = "LU_data" in op.arguments
    factors, pivots = (op.LU_data, op.LU_pivots) if old else (op.LU, op.pivots)
    given = (factors, op.binary("-", pivots, 1, SUM))
    return op.call("jax.scipy.linalg.lu_solve", given, op.arguments["self"] if old else op.B)


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
        operand, right = (Expression(f"{x.within(ATOM)}.mT", ATOM, x.names) for x in (operand, right))
        lower = not lower
    found = op.call(
        "jax.scipy.linalg.solve_triangular", operand, right, lower=lower or None,
        unit_diagonal=op.unitriangular or None,
    )  # fmt: skip
    return found if op.left else Expression(f"{found.text}.mT", ATOM, found.names)


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
