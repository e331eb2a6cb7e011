from .collecting import make_report as make_report
from .page import write_page as write_page
from .writing import leave_report as leave_report
