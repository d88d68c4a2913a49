"""``python -m agent.virtual_phone``."""

import sys

from agent.virtual_phone.main import run

sys.exit(run())
