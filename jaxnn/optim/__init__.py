"""torch.optim's algorithms and schedules, as optax transformations."""

from jaxnn.optim._base import Optimizer as Optimizer
from jaxnn.optim._base import OptimizerState as OptimizerState
from jaxnn.optim._groups import param_groups as param_groups
from jaxnn.optim.sgd import SGD as SGD
