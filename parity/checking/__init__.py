"""Is the port right: forward, gradients, training; and if not, which layer is wrong."""

from parity.checking.audit import precision_audit as precision_audit
from parity.checking.models import assert_matches as assert_matches
from parity.checking.models import check as check
from parity.checking.report import DivergenceError as DivergenceError
from parity.checking.report import Report as Report
from parity.checking.training import check_training as check_training
