"""torch.optim.lr_scheduler's schedules, as optax schedules: functions of the count of updates, to pass as ``lr``."""

from jaxnn.optim.lr_scheduler._base import Schedule as Schedule
from jaxnn.optim.lr_scheduler.composition import ChainedScheduler as ChainedScheduler
from jaxnn.optim.lr_scheduler.composition import SequentialLR as SequentialLR
from jaxnn.optim.lr_scheduler.cycles import CosineAnnealingLR as CosineAnnealingLR
from jaxnn.optim.lr_scheduler.cycles import CosineAnnealingWarmRestarts as CosineAnnealingWarmRestarts
from jaxnn.optim.lr_scheduler.cycles import CyclicLR as CyclicLR
from jaxnn.optim.lr_scheduler.cycles import OneCycleLR as OneCycleLR
from jaxnn.optim.lr_scheduler.factors import ConstantLR as ConstantLR
from jaxnn.optim.lr_scheduler.factors import ExponentialLR as ExponentialLR
from jaxnn.optim.lr_scheduler.factors import LambdaLR as LambdaLR
from jaxnn.optim.lr_scheduler.factors import LinearLR as LinearLR
from jaxnn.optim.lr_scheduler.factors import MultiplicativeLR as MultiplicativeLR
from jaxnn.optim.lr_scheduler.factors import MultiStepLR as MultiStepLR
from jaxnn.optim.lr_scheduler.factors import PolynomialLR as PolynomialLR
from jaxnn.optim.lr_scheduler.factors import StepLR as StepLR
from jaxnn.optim.lr_scheduler.plateau import ReduceLROnPlateau as ReduceLROnPlateau
