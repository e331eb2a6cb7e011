from .auto import run_auto as run_auto
from .deriving import derive as derive
from .plan import Plan as Plan
from .stage import StageRun as StageRun
from .transfer import run_method as run_method
