"""A formula over a user's table, to a design matrix: formulaic's, with mistakes told in words."""

from __future__ import annotations

import ast
import keyword
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from rlpf_pipeline.abtest.cells import Cells, Numbers, cells_of
from rlpf_pipeline.abtest.frames import LARGEST, plain, require_one_type_of_names, require_single
from rlpf_pipeline.abtest.maximum import Array
from rlpf_pipeline.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FUNCTIONS = "C I Q exp log log2 log10 np.abs np.exp np.log np.log1p np.sqrt"
CONTRASTS = "Treatment Sum contr.treatment contr.sum"
ROW_BY_ROW = frozenset(f"{FUNCTIONS} {CONTRASTS}".split())
"""Functions whose value for a row does not depend on how often others occur."""
PLAIN = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop, ast.Load)


def design_matrix(
    frame: pd.DataFrame, formula: str, counted: tuple[str, ...], clusters: Numbers | None
) -> tuple[Array, list[str], Cells | None]:
    """(cells, columns), the columns' names, the cells. counted: what `.` in the formula does not stand for. clusters:
    each row's. Rows of a cluster with the same values in the formula's columns are a cell; None where each row is one.

    Raises UserError where it cannot be built.
    """
    import formulaic  # heavy, and not needed by `estimate`
    from formulaic.errors import FormulaicError

    if not isinstance(formula, str):
        raise UserError(f"The formula is a text such as '~ treatment + C(industry)', not a {type(formula).__name__}.")
    meant = {"__formulaic_variables_available__": [name for name in frame.columns if name not in counted]}
    try:
        parsed = formulaic.Formula(formula, _context=meant)
        if not isinstance(parsed, formulaic.SimpleFormula):
            raise UserError(
                f"The formula '{formula}' has a left side or several parts. Write only one right side: "
                "'~ treatment + …'."
            )
        require_single(frame, parsed.required_variables)
        functions = named_as_functions(frame, parsed)
        known = frame.drop(columns=functions) if functions else frame  # dropping none copies too
        used = known.columns.intersection(list(parsed.required_variables))
        cells = None
        if clusters is not None and is_row_by_row(parsed):
            cells = cells_of((known[name] for name in used), clusters)
            known = known.iloc[cells.shown]
        known = known.copy(deep=False)
        for name in used:
            known[name] = plain(known[name])
            require_one_type_of_names(known[name])
        matrix = formulaic.model_matrix(parsed, known, context={}, na_action="raise", output="numpy")
    except (FormulaicError, SyntaxError, ValueError, LookupError, AttributeError) as error:
        said, _, _ = str(error).partition("\n")  # what follows is the formula, with codes for a terminal's colours
        advice = formula_advice(frame, formula, said)
        raise UserError(f"The formula '{formula}' does not fit the table: {said.rstrip('.')}.{advice}") from error
    except TypeError as error:
        dates = ", ".join(map(str, frame.select_dtypes(["datetime", "datetimetz", "timedelta"])))
        advice = f" Dates and durations are no numbers; make numbers of days of them: {dates}." if dates else ""
        raise UserError(f"The formula '{formula}' does not fit the table: {error}.{advice}") from error
    names = [str(name) for name in matrix.model_spec.column_names]
    if not names:
        raise UserError(f"The formula '{formula}' has no column, not even an intercept. Write '~ treatment + …'.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"The formula '{formula}' has two columns of the name {', '.join(twice)}. Rename the table's own."
        )
    design = np.asarray(matrix, dtype=np.float64)
    if len(frame) < len(names):
        raise UserError(f"{len(frame)} rows cannot carry {len(names)} columns ({formula}). Use fewer covariates.")
    if not np.isfinite(design).all():
        column = names[int((~np.isfinite(design)).any(axis=0).argmax())]
        raise UserError(f"The column {column} of the formula '{formula}' has values that are not finite.")
    largest = np.maximum(design.max(axis=0), -design.min(axis=0))
    if (extreme := (largest > LARGEST) | ((largest > 0) & (largest < 1 / LARGEST))).any():
        column, value = names[int(extreme.argmax())], largest[extreme.argmax()]
        raise UserError(f"The column {column} of the formula '{formula}' has values up to {value:.0e}. Rescale it.")
    return design, names, cells


def is_row_by_row(parsed: Any) -> bool:
    """Whether a row's design follows from that row, up to the levels that there are."""
    from formulaic.parser.types import Factor

    factors = [factor for term in parsed for factor in term.factors]
    return all(is_plain(factor.expr) for factor in factors if factor.eval_method is Factor.EvalMethod.PYTHON)


def is_plain(expression: str) -> bool:
    """Whether it holds nothing but names, numbers, arithmetic and functions of ROW_BY_ROW."""
    try:
        tree = ast.parse(expression, mode="eval").body
    except SyntaxError:  # as of a name in backticks
        return False
    parts: list[ast.AST] = [tree]
    while parts:
        part = parts.pop()
        if isinstance(part, ast.Call) and ast.unparse(part.func) in ROW_BY_ROW:
            parts += [*part.args, *(keyword.value for keyword in part.keywords)]
        elif isinstance(part, PLAIN) and not isinstance(part, ast.MatMult):
            parts += ast.iter_child_nodes(part)
        else:
            return False
    return True


def named_as_functions(frame: pd.DataFrame, parsed: Any) -> list[Any]:
    """Columns named as one of formulaic's functions (`C`, `log`, `scale` …) that do not stand for themselves in the
    formula: formulaic would call the column."""
    from formulaic.parser.types import Factor
    from formulaic.transforms import TRANSFORMS

    factors = [factor for term in parsed for factor in term.factors]
    standing = {factor.expr for factor in factors if factor.eval_method is Factor.EvalMethod.LOOKUP}
    return [name for name in frame.columns if name in TRANSFORMS and name not in standing]


def formula_advice(frame: pd.DataFrame, formula: str, said: str) -> str:
    """What to do about a formula that could not be evaluated."""
    from formulaic.transforms import TRANSFORMS

    advice = " Fill them in or leave those rows out, the same way in both arms." if "null values" in said else ""
    if ", Treatment)" in formula:
        advice += " Treatment is written with the level to compare with: Treatment('a')."
    names = [str(name) for name in frame.columns if str(name) in formula]
    if numbers := ", ".join(str(name) for name in frame.columns if not isinstance(name, str) and str(name) in names):
        advice += f" Columns named by numbers are to be named by text: {numbers}."
    if odd := ", ".join(f"`{name}`" for name in names if not name.isidentifier() and f"`{name}`" not in formula):
        advice += f" In a formula, these names stand in backticks: {odd}."
    if words := ", ".join(f"Q('{name}')" for name in names if keyword.iskeyword(name)):
        advice += f" Within a function, a column named by a word of Python is written {words}."
    standing = [name for name in names if re.search(rf"\b{re.escape(name)}\b(?!\s*[(.])", formula)]
    if functions := ", ".join(name for name in standing if name in TRANSFORMS):
        advice += f" Within a function, these names stand for functions; rename the columns: {functions}."
    return advice
