"""See `command.py`. It is imported late: the processes of a run import this file before they thaw the records."""

import sys

if __name__ == "__main__":
    from tests.sim.command import main

    sys.exit(main(sys.argv[1:]))
