"""The bridge between PyTorch and jaxnn: weights carried over, results compared, models written anew in JAX."""

from parity import weights as weights
from parity.checking import DivergenceError as DivergenceError
from parity.checking import Report as Report
from parity.checking import assert_matches as assert_matches
from parity.checking import check as check
from parity.checking import check_training as check_training
from parity.checking import precision_audit as precision_audit
from parity.mirroring import MirrorError as MirrorError
from parity.mirroring import mirror as mirror
from parity.optimizers import OptimizerStateError as OptimizerStateError
from parity.optimizers import optimizer_state as optimizer_state
from parity.optimizers import optimizer_state_dict as optimizer_state_dict
from parity.porting import Port as Port
from parity.porting import PortError as PortError
from parity.porting import port as port
from parity.porting import register_operator as register_operator
