from .finding import find_experiment as find_experiment
from .finding import known_experiments as known_experiments
from .parts import plain_data as plain_data
from .resolving import ResolvedExperiment as ResolvedExperiment
from .resolving import resolve as resolve
from .resolving import run_data as run_data
