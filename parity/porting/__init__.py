"""Any torch model as readable Flax NNX source, with proof."""

from parity.porting import operators as operators
from parity.porting.errors import PortError as PortError
from parity.porting.operators.registry import register_operator as register_operator
from parity.porting.port import Port as Port
from parity.porting.port import port as port
