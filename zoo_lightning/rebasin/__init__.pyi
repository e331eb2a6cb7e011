from .activations import match_activations as match_activations
from .channels import ChannelGraph as ChannelGraph
from .channels import channel_groups as channel_groups
from .channels import permute as permute
from .sources import kernel_cosines as kernel_cosines
from .sources import match_sources as match_sources
from .weights import match_weights as match_weights
