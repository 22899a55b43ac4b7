"""What people get wrong in rotary embeddings: which numbers of a head are turned together."""

from collections.abc import Iterator

import torch

from parity.checking.diagnosis.calls import Call, Mutated, Mutation
from parity.checking.diagnosis.mutations import input_of, suspects_of

BASES = (100.0, 1e3, 1e4, 1e5, 5e5, 1e6)
SAID = {
    "halves": "neighbours in the last axis are turned together (0 with 1), in torch its halves (0 with n/2)",
    "neighbours": "the halves of the last axis are turned together (0 with n/2), in torch neighbours (0 with 1)",
}


def regrouped(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """Whatever torch takes apart into halves is taken apart into neighbours, and the reverse.

    The turned numbers come out in another order than the port's, the same in queries and keys, so that
    their products are the port's.
    """
    for how, said in SAID.items():
        apart = [input_of(call) for call in calls if _taken_apart(call) == how]
        mutated: Mutated = {}
        for call in calls:
            places = [i for i, x in enumerate(call.positional) if any(_same(x, y) for y in apart)]
            if places:
                mutated[call.index] = lambda c, p=places, h=how: _reordered(c, p, h)
        if mutated:
            yield "rotary embedding", said, mutated


def unturned(calls: list[Call]) -> Iterator[tuple[str, str, Mutated]]:
    """What torch takes apart and turns goes on as it was, such as the keys."""
    everything: Mutated = {}
    for call in calls:
        x = input_of(call) if _taken_apart(call) else None
        ends = [c for c in calls if x is not None and c.index > call.index and c.name in ("cat", "add", "flatten")]
        for end in (c for c in ends if x is not None and c.run().shape == x.shape):
            how = {end.index: lambda _, x=x: x}
            everything = how | everything
            said = f"queries or keys are not turned: what torch makes of them by {end.name} is left out"
            yield "rotary embedding", said, how
            break
    if everything:
        yield "rotary embedding", "queries and keys are not turned", everything


@suspects_of("sin")
def _backwards(_: Call) -> Iterator[Mutation]:
    yield "rotary embedding", "the sine has the other sign: it turns backwards", lambda c: -c.run()


@suspects_of("pow", "__rpow__")
def _base(call: Call) -> Iterator[Mutation]:
    at = 1 if call.name == "__rpow__" else 0
    now = call.positional[at]
    for base in BASES if isinstance(now, int | float) else ():
        if base != now:
            said = f"the base of the frequencies is as if {base:g}, torch's is {now:g}"
            exponent = call.positional[1 - at]
            yield "rotary embedding", said, lambda _, b=base, e=exponent: torch.pow(b, e)


def _reordered(call: Call, places: list[int], how: str) -> object:
    given = list(call.positional)
    for i in places:
        order = torch.arange(given[i].shape[-1]).reshape(-1, 2).T.reshape(-1)
        given[i] = given[i][..., order if how == "halves" else order.argsort()]
    return call.function(*given, **call.keywords)


def _taken_apart(call: Call) -> str | None:
    """Into what, of its last axis."""
    x = input_of(call) if call.name in ("__getitem__", "chunk", "split", "reshape") else None
    if not isinstance(x, torch.Tensor) or x.ndim < 3 or x.shape[-1] % 2:
        return None
    part = call.run()
    if call.name == "reshape":
        return "neighbours" if part.shape == (*x.shape[:-1], x.shape[-1] // 2, 2) else None
    part = part[0] if isinstance(part, tuple | list) else part
    if part.shape != (*x.shape[:-1], x.shape[-1] // 2):
        return None
    return {1: "halves", 2: "neighbours"}.get(part.stride(-1) // x.stride(-1))


def _same(x: object, y: torch.Tensor) -> bool:
    return (
        isinstance(x, torch.Tensor) and x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride()
    )
