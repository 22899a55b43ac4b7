"""``flex_attention`` as the products and the softmax that it stands for: neither export nor a mode sees into it."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from parity.standing_in import in_place_of


@contextmanager
def flexible() -> Iterator[None]:
    """Within, what changes scores and makes masks is called once, with the places of all entries as arrays."""
    with ExitStack() as stack:
        stack.enter_context(in_place_of(create_block_mask, _masks, _mask))
        stack.enter_context(in_place_of(flex_attention, _attends, _attention))
        yield


def _masks(mask_mod, *sizes, **options):  # type: ignore[no-untyped-def]
    return create_block_mask.instead(mask_mod)


def _attends(  # type: ignore[no-untyped-def]
    query,
    key,
    value,
    score_mod=None,
    block_mask=None,
    scale=None,
    enable_gqa=False,
    return_lse=False,
    kernel_options=None,
    *,
    return_aux=None,
):
    return flex_attention.instead(query, key, value, score_mod, block_mask, scale, enable_gqa, return_lse or return_aux)


def _mask(mask_mod: Callable[..., Tensor]) -> Any:
    """What stands for a block mask: which blocks it leaves out changes nothing of the result."""
    return SimpleNamespace(mask_mod=mask_mod)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Any,
    block_mask: Any,
    scale: float | None,
    gqa: bool,
    more: Any,
) -> Tensor:
    if more:
        raise NotImplementedError("flex_attention that returns more than its output")
    if gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    batch, heads, length, width = query.shape
    sizes = batch, heads, length, key.shape[2]
    places = [torch.arange(size)[(..., *[None] * (3 - axis))] for axis, size in enumerate(sizes)]
    mask = None if block_mask is None else block_mask.mask_mod(*places)
    if mask is not None and not mask.ndim:
        mask = mask.expand(sizes[2:])
    if score_mod is None:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    # In single at least, and rows of which nothing is left are zero, as in torch's kernels.
    exact = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = query.to(exact) @ key.to(exact).transpose(-2, -1) * (1 / math.sqrt(width) if scale is None else scale)
    scores = score_mod(scores, *places)
    if mask is not None:
        scores = torch.where(mask, scores, -math.inf)
    return torch._safe_softmax(scores, -1).to(query.dtype) @ value
