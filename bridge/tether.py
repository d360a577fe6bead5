"""`python -m bridge.tether FOLDER COMMAND…`: run a command for as long as whoever started this lives.

Its standard input is a pipe that nobody writes to: when the other end is closed, or gone with its process however that
died, the command gets SIGTERM, and its folder is removed when it has ended.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading


def main() -> int:
    folder, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait_for_the_end() -> None:
        os.read(0, 1)
        child.terminate()

    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    threading.Thread(target=wait_for_the_end, daemon=True).start()
    code = child.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return abs(code)


if __name__ == "__main__":
    sys.exit(main())
