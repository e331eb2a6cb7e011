from .command import push_to_hub as push_to_hub
from .exporting import export as export
from .manifest import Manifest as Manifest
from .manifest import manifest_of as manifest_of
from .manifest import read_manifest as read_manifest
from .mixtures import as_mixtures as as_mixtures
from .modules import deployable as deployable
from .modules import fold_by_average as fold_by_average
