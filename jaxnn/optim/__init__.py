"""torch.optim's algorithms and schedules, as optax transformations."""

from jaxnn.nn.utils.clip_grad import clip_grad_norm_ as clip_grad_norm_
from jaxnn.nn.utils.clip_grad import clip_grad_value_ as clip_grad_value_
from jaxnn.optim import lr_scheduler as lr_scheduler
from jaxnn.optim import swa_utils as swa_utils
from jaxnn.optim._base import Optimizer as Optimizer
from jaxnn.optim._base import OptimizerState as OptimizerState
from jaxnn.optim._groups import param_groups as param_groups
from jaxnn.optim.adadelta import Adadelta as Adadelta
from jaxnn.optim.adafactor import Adafactor as Adafactor
from jaxnn.optim.adagrad import Adagrad as Adagrad
from jaxnn.optim.adam import Adam as Adam
from jaxnn.optim.adam import AdamW as AdamW
from jaxnn.optim.adamax import Adamax as Adamax
from jaxnn.optim.asgd import ASGD as ASGD
from jaxnn.optim.lbfgs import LBFGS as LBFGS
from jaxnn.optim.lbfgs import LBFGSState as LBFGSState
from jaxnn.optim.muon import Muon as Muon
from jaxnn.optim.nadam import NAdam as NAdam
from jaxnn.optim.radam import RAdam as RAdam
from jaxnn.optim.rmsprop import RMSprop as RMSprop
from jaxnn.optim.rprop import Rprop as Rprop
from jaxnn.optim.sgd import SGD as SGD
from jaxnn.optim.sparse_adam import SparseAdam as SparseAdam
