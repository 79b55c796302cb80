"""What went wrong on the user's side, said in a paragraph: what, where, and what to do."""


class UserError(Exception):
    """A mistake in the input, the settings or the surroundings that the user can mend.

    The command line prints its message without a traceback and exits with 2.
    """
