"""What is asked of an index: a box, and conditions on columns. Checked once; it travels to whoever reads rows."""

from __future__ import annotations

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from xchip.indexing.opening.schema import arrow_schema
from xchip.io.storage import StorageOptions

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

Bounds = tuple[float, float, float, float]
"""(west, south, east, north), degrees."""
Term = tuple[str, str, Any]
"""(column, operator, value)."""

MANIFEST_COLUMNS = ("collection", "item_id", "sensor", "datetime")
"""Columns that have one value in all rows of a part, which the manifest tells."""

_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS = (*_COMPARISONS, "in", "not in")


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows are wanted; made by `make_query`."""

    boxes: tuple[Bounds, ...] | None = None
    """None: everywhere; two for a box across the antimeridian."""
    condition: pc.Expression | None = None
    """What holds for each row of the answer."""
    groups: tuple[tuple[Term, ...], ...] | None = None
    """The condition as alternatives of terms, where it was given so."""
    chip_size: int = 256
    """Pixels, of chips in stacchip's tables."""
    items_root: str | None = None
    """Where the items of stacchip's tables are; None: where the table's own path tells."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    columns: tuple[str, ...] | None = None
    """Which columns the answer has; None: all that there are."""
    schema: pa.Schema = field(default_factory=arrow_schema)
    """Columns that the condition may speak of: the index's own, then extra ones, which are null in files that lack them."""

    @property
    def statistics_condition(self) -> pc.Expression | None:
        """A condition that is true wherever ``condition`` is, and that statistics decide rightly; None if there is none.

        Statistics know nothing of NaN: a row group whose numbers are all 0 may hold NaN, which differs from 0.
        """
        if self.condition is None:
            return None
        if self.groups is None:
            return self.condition if _decided_by_statistics(str(self.condition)) else None
        kept = [[term for term in group if _is_decided(term)] for group in self.groups]
        return expression(kept, self.schema) if all(kept) else None

    def near(self, bounds: np.ndarray) -> np.ndarray:
        """Which of ``bounds``, float64 (n, 4), touch the box: bool (n,). NaN touches nothing."""
        if self.boxes is None:
            return np.ones(len(bounds), bool)
        left, bottom, right, top = bounds.T
        found = [(left <= e) & (right >= w) & (bottom <= n) & (top >= s) for w, s, e, n in self.boxes]
        return np.logical_or.reduce(found)

    def touches(self, left: Any, bottom: Any, right: Any, top: Any) -> pc.Expression | None:
        """The same as an expression on four columns."""
        if self.boxes is None:
            return None
        found = [(left <= e) & (right >= w) & (bottom <= n) & (top >= s) for w, s, e, n in self.boxes]
        return reduce(operator.or_, found)

    def intersects(self, wkb: Any) -> np.ndarray:
        """Which of the geometries touch the box; empty and missing ones do not."""
        import shapely

        shapes = shapely.from_wkb(np.asarray(wkb, object))
        found = np.zeros(len(shapes), bool)
        for box in self.boxes or ():
            area = _shape(box)
            shapely.prepare(area)
            found |= shapely.intersects(area, shapes)
        return found

    def may_hold(self, parts: pa.Table) -> np.ndarray:
        """Which of ``parts``, rows of a manifest, may hold rows of the answer as far as the condition goes: bool (n,)."""
        import pyarrow as pa

        everything = np.ones(len(parts), bool)
        if self.condition is None:
            return everything
        known = pa.table({name: parts[name].cast(self.schema.field(name).type) for name in MANIFEST_COLUMNS})
        if self.groups is not None:
            kept = [[term for term in group if term[0] in MANIFEST_COLUMNS] for group in self.groups]
            return _evaluate(expression(kept, self.schema), known, unknown=False) if all(kept) else everything
        try:
            return _evaluate(self.condition, known, unknown=False)
        except pa.ArrowInvalid:  # it speaks of other columns too
            if not _calls(str(self.condition)) <= {"invert"}:
                return everything
        # Null stands for "not known": comparisons, and, or, not treat it so.
        for column in self.schema:
            if column.name not in known.column_names:
                known = known.append_column(column, pa.nulls(len(parts), column.type))
        return _evaluate(self.condition, known, unknown=True)


def _evaluate(condition: pc.Expression, table: pa.Table, *, unknown: bool) -> np.ndarray:
    """The condition's value in each row: bool (n,); ``unknown`` where it is null."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    held = ds.dataset(table).to_table(columns={"held": condition})["held"]
    return pc.fill_null(held, unknown).to_numpy()


def _calls(text: str) -> set[str]:
    """Names of the functions that an expression calls; comparisons, and, or are none."""
    return set(re.findall(r"(\w+)\(", text))


def _decided_by_statistics(text: str) -> bool:
    """Whether an expression, as text, is one that NaN never makes true, on columns that files hold as the answer does."""
    return (
        _calls(text) <= {"is_in", "is_valid"}
        and not re.search(r"value_set=(double|float|halffloat)", text)
        and "!=" not in text
        and "item_href" not in text
    )


def _is_decided(term: Term) -> bool:
    """The same of a term."""
    column, op, value = term
    values = value if op == "in" else [value]
    plain = all(v is not None and v == v for v in values)
    return column != "item_href" and op not in ("!=", "not in") and plain


def _shape(box: Bounds) -> Any:
    """A box as a geometry: one without width or height is no valid polygon."""
    import shapely

    west, south, east, north = box
    if west == east and south == north:
        return shapely.Point(west, south)
    if west == east or south == north:
        return shapely.LineString([(west, south), (east, north)])
    return shapely.box(west, south, east, north)


def make_query(
    bbox: Any = None,
    filters: Any = None,
    columns: Sequence[str] | None = None,
    *,
    extra: Callable[[], pa.Schema],
    **options: Any,
) -> Query:
    """Check what a caller asks for; ``extra`` finds the columns beyond the index's own, and is asked only where that matters.

    Raises
    ------
    ValueError
        For a box or filters that make no sense, and columns that are not there.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    boxes = None if bbox is None else split_box(bbox)
    groups = condition = None
    if isinstance(filters, pc.Expression):
        condition = filters
    elif filters is not None and filters != []:
        groups = _groups(filters)
    schema = arrow_schema()
    named = {*(columns or ()), *(term[0] for group in groups or () for term in group)}
    if not named <= set(schema.names) or (condition is not None and _unknown_column(condition, schema)):
        schema = pa.schema([*schema, *extra()])
    unknown = [name for name in sorted(named) if name not in schema.names]
    if not unknown and condition is not None:
        unknown = [name for name in [_unknown_column(condition, schema)] if name]
    if unknown:
        near = difflib.get_close_matches(unknown[0], schema.names, n=3, cutoff=0.5)
        known = f"near are {near}" if near else f"it has {schema.names}"
        raise ValueError(f"the index has no column {unknown[0]!r}; {known}")
    if groups is not None:
        condition = expression(groups, schema)
    if condition is not None:
        try:
            schema.empty_table().filter(condition)
        except pa.ArrowException as error:
            raise ValueError(f"filters: {condition} can't be evaluated: {error}") from None
    return Query(boxes, condition, groups, columns=None if columns is None else tuple(columns), schema=schema, **options)


def _unknown_column(condition: pc.Expression, schema: pa.Schema) -> str | None:
    """A column that an expression speaks of and that is not there."""
    import pyarrow as pa

    try:
        schema.empty_table().filter(condition)
    except pa.ArrowInvalid as error:
        found = re.match(r"No match for (?:FieldRef\.)?\w*\((.*?)\) in ", str(error))
        return found and found[1]
    except pa.ArrowException:
        return None
    return None


def split_box(bbox: Sequence[float]) -> tuple[Bounds, ...]:
    """A box of longitudes and latitudes as one box, or two if it crosses the antimeridian.

    Examples
    --------
    >>> split_box((170, -10, -175, 10))
    ((170.0, -10.0, 180.0, 10.0), (-180.0, -10.0, -175.0, 10.0))
    """
    try:
        west, south, east, north = (float(value) for value in bbox)
    except (TypeError, ValueError):
        raise ValueError(f"bbox is (west, south, east, north) in degrees, got {bbox!r}") from None
    if not all(math.isfinite(value) for value in (west, south, east, north)):
        raise ValueError(f"bbox must be finite, got {bbox!r}")
    if not -90 <= south <= north <= 90:
        raise ValueError(f"bbox is (west, south, east, north) with -90 <= south <= north <= 90, got {bbox!r}")
    if not (-180 <= west <= 180 and -180 <= east <= 180):
        raise ValueError(f"longitudes of bbox are from -180 to 180, got {bbox!r}; west > east crosses the antimeridian")
    if west <= east:
        return ((west, south, east, north),)
    return (west, south, 180.0, north), (-180.0, south, east, north)


def _groups(filters: Any) -> tuple[tuple[Term, ...], ...]:
    """A list of terms, or of lists of terms, checked."""
    wanted = (
        "filters are [(column, operator, value), ...], a list of such lists, of which one must hold, or an expression of "
        "pyarrow.compute"
    )
    if not isinstance(filters, list | tuple):
        raise ValueError(f"{wanted}; got {filters!r}")
    alternatives = filters if all(isinstance(group, list) for group in filters) else [filters]
    groups = []
    for group in alternatives:
        if not group:
            raise ValueError(f"{wanted}; got an empty list among {filters!r}")
        for term in group:
            if not (isinstance(term, list | tuple) and len(term) == 3 and isinstance(term[0], str)):
                raise ValueError(f"{wanted}; got {term!r}")
        groups.append(tuple(_term(*term) for term in group))
    return tuple(groups)


def _term(column: str, op: str, value: Any) -> Term:
    given = (column, op, value)
    if op not in OPERATORS:
        raise ValueError(f"filters: the operator must be one of {OPERATORS}, got {op!r} in {given!r}")
    if op in ("in", "not in"):
        if isinstance(value, str | bytes) or not isinstance(value, Iterable):
            raise ValueError(f"filters: {op!r} needs a list of values, got {given!r}")
        return column, op, tuple(_value(column, v) for v in value)
    if value is None:
        raise ValueError(f"filters: nothing compares with None, got {given!r}; use pyarrow.compute.field({column!r}).is_null()")
    return column, op, _value(column, value)


def _value(column: str, value: Any) -> Any:
    """Plain Python; times in UTC as Arrow has them."""
    if column == "datetime" and value is not None:
        import pandas as pd
        import pyarrow as pa

        try:
            time = pd.Timestamp(value)
        except (TypeError, ValueError):
            raise ValueError(f"filters: datetime needs a time such as '2024-05-01T10:00:00Z', got {value!r}") from None
        if pd.isna(time):
            raise ValueError(
                "filters: nothing compares with a datetime that is missing; use pyarrow.compute.field('datetime').is_null()"
            )
        utc = time.tz_localize("UTC") if time.tz is None else time.tz_convert("UTC")
        return pa.scalar(int(utc.as_unit("us").asm8.astype(np.int64)), pa.timestamp("us", tz="UTC"))
    return value.item() if isinstance(value, np.generic) else value


def expression(groups: Iterable[Iterable[Term]], schema: pa.Schema) -> pc.Expression:
    """Alternatives of terms as an expression."""
    return reduce(operator.or_, (reduce(operator.and_, (_atom(term, schema) for term in group)) for group in groups))


def _atom(term: Term, schema: pa.Schema) -> pc.Expression:
    import pyarrow as pa
    import pyarrow.compute as pc

    column, op, value = term
    if op in _COMPARISONS:
        return _COMPARISONS[op](pc.field(column), value)
    try:
        values = pa.array(list(value), schema.field(column).type)
    except (pa.ArrowException, TypeError) as error:
        raise ValueError(f"filters: {value!r} can't be values of {column!r}: {error}") from None
    return pc.field(column).isin(values) if op == "in" else ~pc.field(column).isin(values)
