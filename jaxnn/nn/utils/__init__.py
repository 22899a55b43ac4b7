"""``torch.nn.utils``: parameters as one vector, computed from others or fused, and gradients within bounds."""

from jaxnn.nn.utils import parametrizations as parametrizations
from jaxnn.nn.utils import parametrize as parametrize
from jaxnn.nn.utils.clip_grad import clip_grad_norm_ as clip_grad_norm_
from jaxnn.nn.utils.clip_grad import clip_grad_value_ as clip_grad_value_
from jaxnn.nn.utils.clip_grad import clip_grads_with_norm_ as clip_grads_with_norm_
from jaxnn.nn.utils.clip_grad import get_total_norm as get_total_norm
from jaxnn.nn.utils.convert_parameters import parameters_to_vector as parameters_to_vector
from jaxnn.nn.utils.convert_parameters import vector_to_parameters as vector_to_parameters
from jaxnn.nn.utils.fusion import fuse_conv_bn_eval as fuse_conv_bn_eval
from jaxnn.nn.utils.fusion import fuse_linear_bn_eval as fuse_linear_bn_eval
