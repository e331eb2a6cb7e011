"""Reports to look at: one self-contained HTML page of a run, comparison, sweep or gate report.

Everything is read from the folders' files, so that pages can be made of runs of any age.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
