"""``torch.nn.utils``: weights computed from other parameters."""

from jaxnn.nn.utils import parametrizations as parametrizations
from jaxnn.nn.utils import parametrize as parametrize
