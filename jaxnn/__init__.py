"""PyTorch's neural-network semantics in pure JAX, on Flax NNX and optax."""

from jaxnn import functional as functional
from jaxnn import init as init
from jaxnn import models as models
from jaxnn import nn as nn
from jaxnn import optim as optim
from jaxnn.runtime import tune_cpu as tune_cpu
from jaxnn.training import TrainState as TrainState
from jaxnn.training import train_step as train_step

__version__ = "0.1.0"
