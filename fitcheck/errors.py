"""The one exception that users see, and the exit codes."""

from __future__ import annotations

EXIT_OK = 0  # answered; for check: yes
EXIT_NO = 1  # check only: no
EXIT_ERROR = 2  # could not answer
EXIT_INTERRUPTED = 130
EXIT_PIPE_CLOSED = 141


class FitcheckError(Exception):
    """Something that the user can mend. ``code`` is stable and machine readable (``unknown_model``, ``bad_option``,
    ``unreadable_file``, ``network``, …); ``message`` is one lower-case line; ``hint`` says what to type."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
