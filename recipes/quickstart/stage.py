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
from contextlib import nullcontext
from pathlib import Path

LOG = "stages.jsonl"  # in OUT: a line for each command that ended well
AT_ONCE = "-j" in os.environ.get("MAKEFLAGS", "")  # whether another stage may run beside


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
    began = time.time()
    # Into a temporary file, so that a command that fails leaves what was there.
    temporary = file.with_name(f".{file.name}") if file else None
    with temporary.open("wb") if temporary else nullcontext() as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.PIPE if AT_ONCE else None,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # Of two stages at once, each line says which stage it is of.
        for text in process.stderr or ():
            print(f"{stage} | {text.decode(errors='replace').rstrip()}", file=sys.stderr)
        if code := process.wait():
            return code
    if file and temporary:
        temporary.replace(file)
    line = {"stage": stage, "command": shlex.join(command), "began": began, "seconds": round(time.time() - began, 1)}
    with (Path(out) / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit({"about": about, "run": run}[sys.argv[1]](*sys.argv[2:]))
