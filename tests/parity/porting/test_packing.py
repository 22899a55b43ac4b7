"""Packed sequences: what torch packs is a padded array and its lengths in a port."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from jaxnn import nn
from parity.porting import PortError, port

TOKENS = torch.randint(1, 20, (3, 6), generator=torch.Generator().manual_seed(1))
FALLING, MIXED = torch.tensor([6, 4, 1]), torch.tensor([2, 6, 3])


class Tagger(torch.nn.Module):
    def __init__(self, kind="LSTM", width=5, *, packed_first=True, enforce_sorted=False, **options):
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 4)
        self.rnn = getattr(torch.nn, kind)(4, width, **options)
        self.packed_first, self.enforce_sorted = packed_first, enforce_sorted

    def packed(self, tokens, lengths):
        x = self.embedding(tokens)
        x = x if self.packed_first else x.transpose(0, 1)
        return pack_padded_sequence(x, lengths, self.packed_first, self.enforce_sorted)

    def forward(self, tokens, lengths):
        output, state = self.rnn(self.packed(tokens, lengths.cpu()))
        output, lengths = pad_packed_sequence(output, batch_first=True)
        return output, state, lengths


def as_jax(*tensors):
    return [jnp.asarray(x.numpy()) for x in tensors]


def agree(module, twin, *inputs):
    with torch.no_grad():
        theirs = torch.utils._pytree.tree_leaves(module(*inputs))
    for a, b in zip(jax.tree.leaves(twin(*as_jax(*inputs))), theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({"batch_first": True}, MIXED),
        ({"batch_first": False}, MIXED),  # packed, the layer does not care which axis comes first
        ({"packed_first": False, "num_layers": 2, "bidirectional": True}, MIXED),
        ({"kind": "GRU", "enforce_sorted": True, "batch_first": True, "bidirectional": True}, FALLING),
        ({"kind": "RNN", "nonlinearity": "relu"}, MIXED),
        ({"proj_size": 3}, MIXED),
    ],
)
def test_a_layer_is_given_the_lengths(options, lengths):
    module = Tagger(**options).eval()
    written = port(module, (TOKENS, lengths))
    assert "lengths=lengths)" in written.source
    assert "sort" not in written.source
    assert any("longest sequence" in note for note in written.notes)
    agree(module, written.module, torch.cat([TOKENS, TOKENS]), torch.cat([lengths, lengths]).sort(descending=True)[0])
    assert written.report.passed


def test_the_source_is_what_a_person_writes():
    written = port(Tagger(batch_first=True).eval(), (TOKENS, MIXED), verify=False)
    assert "output, (state, x) = self.rnn(self.embedding(tokens), lengths=lengths)\n" in written.source


def test_states_given_beside_a_packed_sequence_stay_in_their_order():
    class Started(Tagger):
        def forward(self, tokens, lengths, h):
            _, (h, c) = self.rnn(self.packed(tokens, lengths), (h, h * 2))
            return h, c

    module, h = Started(batch_first=True).eval(), torch.randn(1, 3, 5)
    written = port(module, (TOKENS, MIXED - 1, h))
    assert not any("another batch" in note for note in written.notes)
    agree(module, written.module, TOKENS, MIXED - 1, h)


def test_lengths_may_be_counted_from_a_mask():
    class Masked(Tagger):
        def forward(self, tokens):
            return super().forward(tokens, (tokens != 0).sum(1))

    module = Masked(batch_first=True).eval()
    tokens = TOKENS * (torch.arange(6) < MIXED[:, None])
    written = port(module, (tokens,))
    assert not any("another batch" in note for note in written.notes)
    agree(module, written.module, tokens)


def test_a_total_length_longer_or_shorter_than_the_input():
    class Long(Tagger):
        def forward(self, tokens, lengths):
            packed = self.rnn(self.packed(tokens, lengths))[0]
            longer = pad_packed_sequence(packed, True, -1.0, 8)[0]
            return longer, pad_packed_sequence(packed, total_length=5)[0]

    module, lengths = Long("GRU", batch_first=True).eval(), torch.tensor([5, 2, 3])
    written = port(module, (TOKENS, lengths), verify=False)
    assert not written.notes
    agree(module, written.module, TOKENS, lengths)


def test_an_example_that_torch_cuts_is_refused():
    with pytest.raises(PortError, match="5 of 6 steps"):
        port(Tagger().eval(), (TOKENS, MIXED.clamp(max=5)))


def test_the_entries_of_a_packed_sequence_may_be_averaged():
    class Averaged(Tagger):
        def forward(self, tokens, lengths):
            return self.rnn(self.packed(tokens, lengths))[0].data.mean()

    module = Averaged("GRU", batch_first=True).eval()
    agree(module, port(module, (TOKENS, MIXED)).module, TOKENS, MIXED)


def test_a_packed_sequence_made_of_the_entries_of_another_is_refused():
    class Remade(Tagger):
        def forward(self, tokens, lengths):
            packed = self.rnn(self.packed(tokens, lengths))[0]
            return pad_packed_sequence(packed._replace(data=packed.data.relu()))[0]

    with pytest.raises(PortError, match="made of another one's entries"):
        port(Remade(), (TOKENS, MIXED))


def test_what_is_made_of_the_sizes_of_a_packed_batch_is_refused():
    class Sizes(Tagger):
        def forward(self, tokens, lengths):
            return self.packed(tokens, lengths).batch_sizes * 2

    with pytest.raises(PortError, match="refuses the model"):
        port(Sizes(), (TOKENS, MIXED))


def test_torch_packs_as_before_once_a_model_is_ported():
    port(Tagger().eval(), (TOKENS, MIXED), verify=False)
    packed = pack_padded_sequence(TOKENS, MIXED, True, False)
    assert type(packed) is PackedSequence
    assert packed.batch_sizes.tolist() == [3, 3, 2, 1, 1, 1]
    assert "__call__" not in vars(torch.nn.LSTM)


def test_a_step_of_training_with_dropout_off_is_torchs():
    torch.manual_seed(0)
    module = Tagger(num_layers=2, dropout=0.0, bidirectional=True).train()
    twin = port(module, (TOKENS, MIXED), verify=False).module
    module(TOKENS, MIXED)[0].square().mean().backward()
    torch.optim.SGD(module.parameters(), lr=1.0).step()
    tokens, lengths = as_jax(TOKENS, MIXED)
    gradients = nnx.jit(nnx.grad(lambda twin: jnp.square(twin(tokens, lengths)[0]).mean()))(twin)
    nnx.Optimizer(twin, optax.sgd(1.0), wrt=nnx.Param).update(twin, gradients)
    for name, value in nn.state_dict(twin).items():
        np.testing.assert_allclose(value, module.state_dict()[name], atol=1e-6, err_msg=name)
