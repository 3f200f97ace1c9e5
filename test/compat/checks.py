"""What the Python client programs here share: named checks in order, one JSON line for each (the same lines as checks.mjs).

A check passes when its function returns; what it returns is its answer, which run.mjs compares with plain Postgres.
So an answer must not hold pids, ports, times or anything else that differs from run to run.
"""

import asyncio
import hashlib
import json
import os
import sys
import time
import traceback

has_password = os.environ.get("PGPASSWORD", "") != ""
CHECK_TIMEOUT_SECONDS = 60
_checks = []


class Skip(Exception):
    """Raised by a check that does not apply here; the reason is reported."""


def check(name):
    """Registers a function, plain or async, as the check of that name."""

    def register(body):
        _checks.append((name, body))
        return body

    return register


async def run_checks():
    """Runs all registered checks in order; returns the exit code."""
    failed = False
    for name, body in _checks:
        started = time.monotonic()
        line = {"check": name}
        try:
            answer = body()
            if asyncio.iscoroutine(answer):
                answer = await asyncio.wait_for(answer, CHECK_TIMEOUT_SECONDS)
            line.update(ok=True, answer=answer)
        except Skip as skip:
            line.update(ok=True, skip=str(skip))
        except Exception as error:
            failed = True
            line.update(ok=False, error=traceback.format_exc(), sqlState=getattr(error, "sqlstate", None))
        line["ms"] = round((time.monotonic() - started) * 1000)
        print(json.dumps(line, default=str, ensure_ascii=False), flush=True)
    return 1 if failed else 0


def main():
    sys.exit(asyncio.run(run_checks()))


def sha(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()
