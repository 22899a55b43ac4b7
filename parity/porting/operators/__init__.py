"""How each operator of a torch graph is written in JAX, one file a family."""

from parity.porting.operators import algebra as algebra
from parity.porting.operators import creation as creation
from parity.porting.operators import elementwise as elementwise
from parity.porting.operators import indexing as indexing
from parity.porting.operators import neural as neural
from parity.porting.operators import reduction as reduction
from parity.porting.operators import shape as shape
from parity.porting.operators import spectral as spectral
from parity.porting.operators import strides as strides
from parity.porting.operators.registry import register_operator as register_operator
