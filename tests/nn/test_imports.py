"""The layers need torch and timm only."""

import subprocess
import sys


def test_layers_do_not_import_lightning():
    program = "import sys, zoo_lightning.nn; sys.exit('lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
