from .analysis.report import gate_report as gate_report
from .cli.program import run_command as run_command
from .data import AtariData as AtariData
from .data import DrawnFaces as DrawnFaces
from .data import FashionMNISTSubset as FashionMNISTSubset
from .data import ImageFolders as ImageFolders
from .data import ImageMasks as ImageMasks
from .data import LandmarkCSV as LandmarkCSV
from .data import ListFiles as ListFiles
from .data import TorchvisionData as TorchvisionData
from .deployment.exporting import export as export
from .errors import ZooError as ZooError
from .experiments.resolving import resolve as resolve
from .methods.saving import save_ensemble as save_ensemble
from .models import PlainBackbone as PlainBackbone
from .models.backbone import ZooBackbone as ZooBackbone
from .prediction.predictor import Predictor as Predictor
from .tasks import ClassificationTask as ClassificationTask
from .tasks import LandmarkTask as LandmarkTask
from .tasks import PPOTask as PPOTask
from .tasks import SegmentationTask as SegmentationTask
from .tasks.loading import load_task as load_task
from .transfer.starts import informed_start as informed_start

__version__: str
