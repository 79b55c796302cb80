"""`rlpf`: one thin command per capability. Everything heavy is imported inside the commands.

Exit codes: 0 done, 2 what the user can mend, such as input, a path or a full disk (a paragraph on stderr), 1 a failure
of ours or of the machine, 130 Ctrl-C.
"""

from __future__ import annotations

import errno
import io
import sys

import typer

from rlpf_pipeline.artifacts import tells_of_full_disk
from rlpf_pipeline.cli import experiments, pipeline, texts
from rlpf_pipeline.errors import INTERRUPTED, QUERY_INTERRUPTED, JobFailed, UserError

app = typer.Typer(
    help="Reinforcement Learning with Performance Feedback: ad clicks in, a better copywriter and its A/B proof out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for commands in (pipeline, texts, experiments):
    app.add_typer(commands.app)

NOT_OURS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""What the system says of a path that the user gave."""
FULL_DISK = (
    "The disk of the output, of RLPF_HOME or of temporary files (TMPDIR) is full. Free some space, or name another "
    "disk, and run again."
)


def main() -> None:
    """Entry point: a UserError becomes a message and exit code 2; a failed job its message and exit code 1."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may lack what we print: …, ·
    try:
        for word in sys.argv[1:]:
            if word != word.encode(errors="replace").decode():
                raise UserError(f"{word!r} is not UTF-8. Rename the file or folder, or write the option anew.")
        app()
    except UserError as error:
        print(f"rlpf: {error}", file=sys.stderr)
        sys.exit(2)
    except JobFailed as error:
        print(f"rlpf: {error}", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, RuntimeError) and str(error) == QUERY_INTERRUPTED:
            sys.exit(INTERRUPTED)
        if tells_of_full_disk(error):
            print(f"rlpf: {FULL_DISK}", file=sys.stderr)
        elif isinstance(error, OSError) and error.errno in NOT_OURS and error.filename:
            print(f"rlpf: {error.filename}: {error.strerror}.", file=sys.stderr)
        else:
            raise
        sys.exit(2)
