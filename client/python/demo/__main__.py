"""Runs the demo: `python -m demo [--engine vllm] [--model PATH] [--json]`."""

from __future__ import annotations

import importlib
import json
import sys

from demo.console import Console
from demo.options import parse
from demo.report import Report


def main() -> int:
    """0 when the conversation went on unharmed."""
    options = parse()
    console = Console()
    engine = importlib.import_module(f"demo.{options.engine}_demo")
    try:
        report: Report = engine.run(options, console)
    except KeyboardInterrupt:
        console.note("stopped")
        return 130
    except (RuntimeError, OSError) as failure:  # a timeout is an OSError
        console.alarm(str(failure))
        if options.json:
            print(json.dumps({"engine": options.engine, "failures": [str(failure)]}))
        return 1
    if options.json:
        print(json.dumps({**report.facts, "failures": report.failures}))
    else:
        console.show(report)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
