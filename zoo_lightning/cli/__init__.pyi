from .program import main as main
from .program import run_command as run_command
