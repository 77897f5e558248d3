"""``python -m grncli`` and ``grn``: signals are heard before anything else is imported."""

from grncli.runtime.stopping import watch_signals


def main() -> None:
    """Run the command line and end the process with its exit code."""
    watch_signals()
    from grncli.cli import main as run

    run()


if __name__ == "__main__":
    main()
