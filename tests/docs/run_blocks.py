"""Run the Python blocks given as JSON on standard input, in one namespace; results as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from typing import Any


def main() -> None:
    """Stops after the first block that raises: what follows may depend on it."""
    namespace: dict[str, Any] = {"__name__": "__document__"}
    results = []
    for line, text in json.load(sys.stdin):
        printed, error = io.StringIO(), ""
        try:
            # The lines before make tracebacks count as the document does.
            code = compile("\n" * (line - 1) + text, "document", "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        except BaseException:
            error = traceback.format_exc()
        results.append([line, printed.getvalue().splitlines(), error])
        if error:
            break
    json.dump(results, sys.stdout)


main()
