"""What the command line says without a traceback."""


class UserError(Exception):
    """A mistake in the input, the settings or the surroundings that the user can mend.

    Its message is a paragraph: what, where, and what to do. The command line prints it and exits with 2.
    """


class JobFailed(Exception):
    """A training job ended without success; its message holds what the job said, or what is known of its end."""


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells and typer have it: 128 and the signal's number."""
QUERY_INTERRUPTED = "Query interrupted"
"""Message of the RuntimeError that DuckDB makes of Ctrl-C while it works."""
