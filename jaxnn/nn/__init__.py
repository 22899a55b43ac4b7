"""``torch.nn``'s layers on Flax NNX."""

from jaxnn.nn.activation import ReLU as ReLU
from jaxnn.nn.container import Sequential as Sequential
from jaxnn.nn.convolution import Conv1d as Conv1d
from jaxnn.nn.convolution import Conv2d as Conv2d
from jaxnn.nn.convolution import Conv3d as Conv3d
from jaxnn.nn.dropout import Dropout as Dropout
from jaxnn.nn.linear import Linear as Linear
from jaxnn.nn.loss import BCELoss as BCELoss
from jaxnn.nn.loss import BCEWithLogitsLoss as BCEWithLogitsLoss
from jaxnn.nn.loss import CrossEntropyLoss as CrossEntropyLoss
from jaxnn.nn.loss import MSELoss as MSELoss
from jaxnn.nn.module import Buffer as Buffer
from jaxnn.nn.module import Module as Module
from jaxnn.nn.state import load_state_dict as load_state_dict
from jaxnn.nn.state import named_parameters as named_parameters
from jaxnn.nn.state import state_dict as state_dict
