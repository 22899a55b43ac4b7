"""The bridge between PyTorch and jaxnn: weights carried over, outputs, gradients and training runs compared."""

from parity import weights as weights
from parity.checking import DivergenceError as DivergenceError
from parity.checking import Report as Report
from parity.checking import check as check
from parity.checking import check_training as check_training
