"""The shape of every file in the catalogue. Unknown fields are refused; ids, families and counts are derived, never stored."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=700)]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Arxiv = Annotated[str, StringConstraints(pattern=r"^(\d{4}\.\d{4,5}|[a-z-]+(\.[A-Z]{2})?/\d{7})$")]
Doi = Annotated[str, StringConstraints(pattern=r"^10\.\d{4,9}/\S+$")]
Web = Annotated[str, StringConstraints(pattern=r"^https?://[^\s<>\"']+$", max_length=400)]
Family = Literal["low_rank", "pruning", "distillation", "quantization", "architecture", "frameworks", "overviews", "lists"]
METHOD_FAMILIES = ("low_rank", "pruning", "distillation", "quantization", "architecture", "frameworks")
Tier = Literal["exact", "smoke", "long", "full"]
Expected = Literal["holds", "fails"]


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number; correct it")
    return value


Number = Annotated[float, AfterValidator(_finite)]
Share = Annotated[float, Field(gt=0, le=1)]


def _tolerance(value: float | str) -> float | str:
    if not (re.fullmatch(r"\d+(\.\d+)?%", value) if isinstance(value, str) else 0 <= value < math.inf):
        raise ValueError('must be a number (absolute) or a percentage such as "2%" (relative)')
    return value


Tolerance = Annotated[float | str, AfterValidator(_tolerance)]


def _once(values: list[str]) -> list[str]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice; keep one")
    return values


Names = Annotated[list[Line], AfterValidator(_once)]
Slugs = Annotated[list[Slug], AfterValidator(_once)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Code(Strict):
    url: Web
    framework: Line | None = None
    note: Line | None = None


class Link(Strict):
    url: Web
    label: Line


class Bound(Strict):
    """A number that the paper prints, and what our number must be. Exactly one of the three bounds."""

    paper: Number | None = Field(default=None, description="The number that the paper prints")
    at_least: Number | None = None
    at_most: Number | None = None
    within: Tolerance | None = Field(default=None, description='Largest distance from `paper`: absolute, or relative as in "2%"')
    expected: Expected = "holds"
    because: Prose | None = Field(default=None, description="Why it is expected to fail at our scale")

    def admits(self, value: float) -> bool:
        """Whether a measured value meets the bound. NaN never does."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        if self.within is None or self.paper is None:
            raise ValueError("a bound needs at_least, at_most, or within and paper")
        return abs(value - self.paper) <= self.slack

    @property
    def slack(self) -> float:
        """The tolerance of `within` as an absolute number."""
        if isinstance(self.within, str):
            return float(self.within[:-1]) / 100 * abs(self.paper or 0.0)
        return float(self.within or 0.0)

    @property
    def text(self) -> str:
        """The bound in words: ">= 0.02", "<= 1e-05", "3.4 ± 2%"."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return f"{self.paper:g} ± {self.within}"


class Claim(Bound):
    """What the paper says, where, and the bound that our measurement must meet; `cases` override per case."""

    says: Prose
    where: Line
    tier: Tier
    unit: Line | None = None
    cases: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")], Bound] = {}

    def bounds(self) -> dict[str | None, Bound]:
        """Case name (None where the claim has no cases) to its full bound."""
        if not self.cases:
            return {None: Bound(**{name: getattr(self, name) for name in Bound.model_fields})}
        merged: dict[str | None, Bound] = {}
        for case, bound in self.cases.items():
            merged[case] = Bound(**{
                name: getattr(bound if name in bound.model_fields_set else self, name) for name in Bound.model_fields
            })  # fmt: skip
        return merged

    @model_validator(mode="after")
    def _one_bound(self) -> Self:
        for case, bound in self.bounds().items():
            at = f" in case {case}" if case else ""
            given = [name for name in ("at_least", "at_most", "within") if getattr(bound, name) is not None]
            if len(given) != 1:
                raise ValueError(f"needs exactly one of at_least, at_most, within{at}, has {' and '.join(given) or 'none'}; keep one")
            if bound.within is not None and bound.paper is None:
                raise ValueError(f"within needs paper{at}: add the number to be within of")
            if (bound.expected == "fails") != (bound.because is not None):
                raise ValueError(f"expected: fails and because go together{at}: say why it fails, or drop both")
        return self


class Result(Strict):
    """One printed result. Shares and deltas are recomputed from their parts by the checker."""

    dataset: Line
    model: Line
    metric: Slug
    baseline: Number | None = None
    result: Number
    delta: Number | None = None
    params_before: Number | None = Field(default=None, gt=0, description="Parameters in millions")
    params_after: Number | None = Field(default=None, gt=0)
    params_kept: Share | None = None
    madds_before: Number | None = Field(default=None, gt=0, description="Multiply-adds in millions")
    madds_after: Number | None = Field(default=None, gt=0)
    madds_kept: Share | None = None
    setting: Line | None = Field(default=None, description='Operating point in a few words: "4-bit weights", "70% of channels"')
    where: Line


class Entry(Strict):
    """What every entry has."""

    name: Line
    title: Line
    authors: Names = []
    year: int = Field(ge=1980, le=2100)
    venue: Line | None = None
    arxiv: Arxiv | None = None
    doi: Doi | None = None
    url: Web | None = None
    code: list[Code] = []
    links: list[Link] = []
    tags: Slugs = []
    builds_on: Slugs = []
    compared_with: Slugs = []
    formerly: Slugs = []
    summary: Prose
    when_to_use: Prose | None = None
    when_not: Prose | None = None


class Executable(Entry):
    """An entry that a method file may reimplement."""

    start: Literal["trained", "scratch"] | None = None
    returns: Literal["smaller", "same", "larger"] | None = None
    claims: dict[Slug, Claim] = {}
    results: list[Result] = []
    covers: Slugs = []

    @model_validator(mode="after")
    def _start_and_returns(self) -> Self:
        if self.claims and (self.start is None or self.returns is None):
            raise ValueError("has claims but not both start and returns; add start: trained | scratch and returns: smaller | same | larger")
        return self


class Paper(Executable):
    """A paper with a technique."""

    authors: Names = Field(min_length=1)

    @model_validator(mode="after")
    def _findable(self) -> Self:
        if not (self.arxiv or self.doi or self.url):
            raise ValueError("a paper needs one of arxiv, doi, url; add one")
        return self


class Technique(Strict):
    """One thing that a framework offers, and the entry that reimplements it here."""

    name: Line
    entry: Slug | None = None


class Status(Strict):
    state: Literal["active", "maintained", "unmaintained", "archived"]
    last_activity: Annotated[str, StringConstraints(pattern=r"^\d{4}(-\d{2}(-\d{2})?)?$")]
    note: Line | None = None


class Framework(Executable):
    """A library or tool."""

    url: Web
    techniques: list[Technique] = []
    status: Status | None = None


class Overview(Entry):
    """A survey, thesis or book chapter: lists what it covers."""

    authors: Names = Field(min_length=1)
    covers: Slugs = []


class Listing(Entry):
    """A repository of models or a list of links."""

    url: Web
    topics: list[Line] = []


KINDS: dict[str, type[Entry]] = {
    **dict.fromkeys(METHOD_FAMILIES, Paper), "frameworks": Framework, "overviews": Overview, "lists": Listing,
}  # fmt: skip


class Column(Strict):
    id: Slug
    name: Line
    unit: Line
    direction: Literal["higher", "lower", "none"]
    delta_of: Slug | None = Field(default=None, description="The `baseline` value that this column is the change from")


class Row(Strict):
    method: Line
    entry: Slug | None = None
    values: dict[Slug, Number | None]
    result: dict[Slug, Number] = Field(default={}, description="Absolute values, where printed: delta columns are recomputed from them")
    note: Line | None = None


class Comparison(Strict):
    """A published table that compares methods, as printed."""

    title: Line
    caption: Prose
    dataset: Line
    model: Line
    source: Link
    baseline: dict[Slug, Number] = {}
    columns: list[Column] = Field(min_length=1)
    rows: list[Row] = Field(min_length=1)
    notes: list[Prose] = []

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        known = {column.id for column in self.columns}
        for row in self.rows:
            extra = set(row.values) - known
            if extra:
                names = ", ".join(sorted(extra))
                raise ValueError(f"row {row.method!r} has values for {names}, which is no column; add the column or remove the value")
        return self


class Metric(Strict):
    """A measured or printed quantity."""

    name: Line
    unit: Line
    direction: Literal["higher", "lower", "none"]


class Vocabulary(Strict):
    """The closed lists: what a dataset, model, metric or tag may be called."""

    datasets: dict[Line, Line]
    models: dict[Line, Line]
    metrics: dict[Slug, Metric]
    tags: dict[Slug, Line]
