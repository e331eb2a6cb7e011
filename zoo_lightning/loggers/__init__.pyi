from .figures_and_tables import log_table as log_table
from .figures_and_tables import save_figures as save_figures
from .figures_and_tables import save_table as save_table
from .metrics_file import MetricsFile as MetricsFile
from .selection import SteadyWandbLogger as SteadyWandbLogger
from .selection import make_loggers as make_loggers
