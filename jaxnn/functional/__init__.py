"""``torch.nn.functional`` as pure JAX functions."""

from jaxnn.functional._argument import ArgumentError as ArgumentError
from jaxnn.functional.dropouts import dropout as dropout
from jaxnn.functional.linear_maps import linear as linear
