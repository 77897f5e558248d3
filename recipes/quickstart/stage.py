"""What the demo's Makefile does around a command: say what a stage does, keep the time it took, and its output.

python stage.py about OUT STAGE WHAT TIME
python stage.py run OUT STAGE [--to FILE] -- COMMAND...
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

LOG = "stages.jsonl"  # in OUT: a line for each command that ended well


def about(out: str, stage: str, what: str, takes: str) -> int:
    """Announce a stage, on standard error as all that is said."""
    bold, plain = ("\033[1m", "\033[0m") if sys.stderr.isatty() and "NO_COLOR" not in os.environ else ("", "")
    print(f"{bold}{stage}{plain}: {what} (about {takes})", file=sys.stderr)
    return 0


def run(out: str, stage: str, *arguments: str) -> int:
    """Run a command, and add a line to the log where it ends well; with ``--to``, its output becomes a file."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1 :]
    file = Path(options[1]) if options else None
    # Ctrl-C reaches the command too, which saves what it has and ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    began = time.monotonic()
    output = subprocess.PIPE if file else None
    done = subprocess.run(command, stdout=output, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    if done.returncode:
        return done.returncode
    if file:
        temporary = file.with_name(f".{file.name}")
        temporary.write_bytes(done.stdout)
        temporary.replace(file)
    line = {"stage": stage, "command": shlex.join(command), "seconds": round(time.monotonic() - began, 1)}
    with (Path(out) / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit({"about": about, "run": run}[sys.argv[1]](*sys.argv[2:]))
