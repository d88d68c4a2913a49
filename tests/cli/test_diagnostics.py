"""What coordinators and agents tell of themselves on stderr."""

from __future__ import annotations

import subprocess
import sys

TELLING = """
import logging, structlog
from qgjob.diagnostics import set_up_diagnostics
set_up_diagnostics()
out = structlog.get_logger("lab")
out.debug("a_detail")
out.info("a_fact", job=1, nothing=None, story="Job 1 has begun")
logging.getLogger("library").info("a detail of a library")
logging.getLogger("library").warning("its warning")
"""


def test_each_fact_is_one_line_of_fields_and_details_are_left_out() -> None:
    done = subprocess.run([sys.executable, "-c", TELLING], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    fact, warning = done.stderr.splitlines()
    told = fact.split(" ", 1)[1]
    assert told == 'level=info event=a_fact story="Job 1 has begun" job=1'
    assert warning == "WARNING library its warning"
