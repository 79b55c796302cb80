"""What the command line says without a traceback."""

from collections.abc import Iterable
from itertools import islice

MOST_NAMED = 10


class UserError(Exception):
    """A mistake in the input, the settings or the surroundings that the user can mend.

    Its message is a paragraph: what, where, and what to do. The command line prints it and exits with 2.
    """


class JobFailed(Exception):
    """A training job ended without success; its message holds what the job said, or what is known of its end."""


def listed(things: Iterable[object]) -> str:
    """Their names for a message: of many the first, and how many more there are."""
    names = iter(things)
    first, more = [str(name) for name in islice(names, MOST_NAMED)], sum(1 for _ in names)
    return ", ".join(first) + (f" and {more:,} more" if more else "")


INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells and typer have it: 128 and the signal's number."""
QUERY_INTERRUPTED = "Query interrupted"
"""Message of the RuntimeError that DuckDB makes of Ctrl-C while it works."""
