"""``torch.nn.functional`` as pure JAX functions."""

from jaxnn.functional._argument import ArgumentError as ArgumentError
from jaxnn.functional.attention import scaled_dot_product_attention as scaled_dot_product_attention
from jaxnn.functional.convolution import conv1d as conv1d
from jaxnn.functional.convolution import conv2d as conv2d
from jaxnn.functional.convolution import conv3d as conv3d
from jaxnn.functional.convolution import conv_tbc as conv_tbc
from jaxnn.functional.dropouts import dropout as dropout
from jaxnn.functional.linear_maps import linear as linear
from jaxnn.functional.transposed_convolution import conv_transpose1d as conv_transpose1d
from jaxnn.functional.transposed_convolution import conv_transpose2d as conv_transpose2d
from jaxnn.functional.transposed_convolution import conv_transpose3d as conv_transpose3d
