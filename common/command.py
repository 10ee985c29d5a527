# SPDX-FileCopyrightText: 2026 The tt-deepseek-norms authors
# SPDX-License-Identifier: Apache-2.0
"""How a command starts and how it ends: the same for scripts/NAME.py, `python -m NAME` and an installed NAME."""

import os
import signal
import sys
from enum import IntEnum

import typer
from loguru import logger


class ExitCode(IntEnum):
    HOLDS = 0
    FAILS = 1
    BAD_ARGUMENTS = 2
    """Or files: what the user can mend."""
    NO_DEVICE = 3


def start(app: typer.Typer, *, ends_at_interrupt: bool) -> None:
    """Runs `app` with the process's arguments, and ends the process. The usage line shows the name that was typed.

    What simulators and libraries print to file descriptor 1 goes to stderr: stdout has the command's own output alone.
    What is logged goes to stderr as bare messages, from INFO on.

    Args:
        ends_at_interrupt: as `end_at_interrupt`, for a command that opens a device. Else Ctrl-C is a KeyboardInterrupt,
            which removes what is half written, and then exit code 130.
    """
    if ends_at_interrupt:
        end_at_interrupt()
    if sys.stderr is not None:
        logger.remove()
        logger.add(sys.stderr, format="{message}", level="INFO")
    if sys.stdout is not None and sys.stderr is not None:  # either may be closed, as by >&-
        stdout = os.fdopen(os.dup(1), "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
        os.dup2(2, 1)
        sys.stdout = stdout
    app()


def end_at_interrupt() -> None:
    """From now on Ctrl-C ends this process at once, and a shell sees exit code 130.

    Python would not see it for as long as a launch lasts, since ttnn holds the GIL. What is left behind, the guard and
    the next run clear away, as after a kill.

    A process that was started with SIGINT ignored, as scripts and nohup start what runs in the background, goes on
    ignoring it.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
