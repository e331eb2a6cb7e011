from .architecture import Architecture as Architecture
from .backbone import Backbone as Backbone
from .backbone import ZooBackbone as ZooBackbone
from .backbone import average_networks as average_networks
from .knowledge_flow import KnowledgeFlow as KnowledgeFlow
from .nature_cnn import NatureCNN as NatureCNN
from .nature_cnn import PolicyValueHead as PolicyValueHead
from .plain import PlainBackbone as PlainBackbone
