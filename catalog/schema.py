"""The shape of every file in the catalogue. Unknown fields are refused; ids, families and counts are derived, never stored."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator


def _one_line(value: str) -> str:
    if "\n" in value:
        raise ValueError("must be one line; take out the line break")
    return value


Line = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300), AfterValidator(_one_line)]
Prose = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=700)]
_SLUG = r"^[a-z][a-z0-9_]*$"
_ARXIV = r"^([0-9]{4}\.[0-9]{4,5}|[a-z-]+(\.[A-Z]{2})?/[0-9]{7})$"
_DOI = r"^10\.[0-9]{4,9}/\S+$"
_DAY = r"^[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?$"
_WEB = r"^https?://(\w[\w.-]*|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?([/?#][^\s<>\"']*)?$"
FORMS = {
    _SLUG: "a slug: small letters, digits and _",
    _ARXIV: 'an arXiv id such as "1708.06519"',
    _DOI: 'a DOI such as "10.1109/ICCV.2017.298"',
    _DAY: 'a year, month or day such as "2026-01-31"',
    _WEB: "a web address (http:// or https://, then a host, without user name or password)",
}
Slug = Annotated[str, StringConstraints(pattern=_SLUG, max_length=60)]
Arxiv = Annotated[str, StringConstraints(pattern=_ARXIV, max_length=60)]
Doi = Annotated[str, StringConstraints(pattern=_DOI, max_length=300)]


def _host(value: str) -> str:
    try:
        urlsplit(value).port  # noqa: B018 - it raises for a port or an IPv6 address that is none
    except ValueError as problem:
        raise ValueError(f"is no web address ({str(problem).lower()}); correct it") from problem
    return value


Web = Annotated[str, StringConstraints(pattern=_WEB, max_length=400), AfterValidator(_host)]
Family = Literal["low_rank", "pruning", "distillation", "quantization", "architecture", "frameworks", "overviews", "lists"]
METHOD_FAMILIES = ("low_rank", "pruning", "distillation", "quantization", "architecture", "frameworks")
Tier = Literal["exact", "smoke", "long", "full"]
LONGER = ("exact", "smoke", "long", "full")  # tiers, each longer than those before it
Kind = Literal["effect", "count", "identity", "wiring"]
REFERENCE = "reference"  # what an effect may be measured against beside a control


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be a finite number; correct it")
    return value


Number = Annotated[float, AfterValidator(_finite)]
Share = Annotated[float, Field(gt=0, le=1)]


def _tolerance(value: float | str) -> float | str:
    if not (re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value) if isinstance(value, str) else 0 <= value < math.inf):
        raise ValueError('must be a number (absolute) or a percentage such as "2%" (relative)')
    if isinstance(value, str) and float(value[:-1]) > 100:
        raise ValueError("must be at most 100%, or hardly any number fails; correct it")
    return value


Tolerance = Annotated[float | str, AfterValidator(_tolerance)]


def _once(values: list[str]) -> list[str]:
    twice = sorted(value for value, times in Counter(values).items() if times > 1)
    if twice:
        raise ValueError(f"names {', '.join(twice)} twice; keep one")
    return values


Names = Annotated[list[Line], AfterValidator(_once)]
Slugs = Annotated[list[Slug], AfterValidator(_once)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Code(Strict):
    url: Web = Field(description="Its address")
    framework: Line | None = Field(default=None, description="What it is written in: PyTorch, TensorFlow")
    note: Line | None = Field(default=None, description="Whose it is, or what else to know")


class Link(Strict):
    url: Web = Field(description="Its address")
    label: Line = Field(description="What is there")


class Bound(Strict):
    """A number that the paper prints, and what our number must be. Exactly one of the three bounds."""

    paper: Number | None = Field(default=None, description="The number that the paper prints")
    at_least: Number | None = Field(default=None, description="Our number must not be smaller")
    at_most: Number | None = Field(default=None, description="Our number must not be larger")
    within: Tolerance | None = Field(default=None, description='Largest distance from `paper`: absolute, or relative as in "2%"')
    because: Prose | None = Field(default=None, description="Why our number, as recorded, is not what the paper says")

    def admits(self, value: float) -> bool:
        """Whether a measured value meets the bound. NaN never does."""
        if self.at_least is not None:
            return value >= self.at_least
        if self.at_most is not None:
            return value <= self.at_most
        if self.within is None or self.paper is None:
            raise ValueError("a bound needs at_least, at_most, or within and paper")
        return abs(value - self.paper) <= self.slack

    def worst(self, values: Sequence[float]) -> float:
        """The number of several that decides: smallest for `at_least`, largest for `at_most`, farthest from `paper` for `within`.

        NaN is worse than any, and so is nothing at all.
        """
        if not values or any(value != value for value in values):
            return float("nan")
        if self.at_least is not None:
            return min(values)
        if self.at_most is not None:
            return max(values)
        return max(values, key=lambda value: abs(value - (self.paper or 0.0)))

    @property
    def limit(self) -> float:
        """The number that ours is compared with."""
        return next(value for value in (self.at_least, self.at_most, self.paper, 0.0) if value is not None)

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

    says: Prose = Field(description="What the paper says, never reworded to fit")
    where: Line = Field(description="Where it says so")
    tier: Tier = Field(description="How much work it takes to measure: exact, smoke, long or full")
    kind: Kind = Field(
        description="effect: what the paper says it achieves; count: a published size or cost; identity: its mathematics, against an"
        " oracle; wiring: our own check that the program does its stages"
    )
    against: Slug | None = Field(default=None, description="What an effect is measured against: a control of the method, or reference")
    same_as: Slug | None = Field(default=None, description="The claim that measures the same effect at a longer tier, where it is judged")
    unit: Line | None = Field(default=None, description="Unit of our number")
    cases: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.+-]+$")], Bound] = Field(
        default={}, description="Bounds that differ from case to case, by the case's name"
    )

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
        return self

    @model_validator(mode="after")
    def _kind_agrees(self) -> Self:
        if self.kind != "effect":
            for name in ("against", "same_as"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for an effect, and this is of kind {self.kind}; remove it or correct the kind")
        elif self.tier == "exact":
            raise ValueError("an effect is measured on data; let its tier be smoke, long or full, or choose another kind")
        elif self.against is None:
            raise ValueError("an effect needs against: name the control that it is measured against, or reference")
        return self


class Result(Strict):
    """One printed result. Shares and deltas are recomputed from their parts by the checker."""

    dataset: Line = Field(description="Data, one of the vocabulary")
    model: Line = Field(description="Network, one of the vocabulary")
    metric: Slug = Field(description="Metric, one of the vocabulary")
    baseline: Number | None = Field(default=None, description="Metric before compression")
    result: Number = Field(description="Metric after it")
    delta: Number | None = Field(default=None, description="Change from before to after")
    params_before: Number | None = Field(default=None, gt=0, description="Parameters in millions, before compression")
    params_after: Number | None = Field(default=None, gt=0, description="Parameters in millions, after compression")
    params_kept: Share | None = Field(default=None, description="Share of the parameters that is left")
    madds_before: Number | None = Field(default=None, gt=0, description="Multiply-adds in millions, before compression")
    madds_after: Number | None = Field(default=None, gt=0, description="Multiply-adds in millions, after compression")
    madds_kept: Share | None = Field(default=None, description="Share of the multiply-adds that is left")
    setting: Line | None = Field(default=None, description='Operating point in a few words: "4-bit weights", "70% of channels"')
    where: Line = Field(description="Table, figure or section")


class Equation(Strict):
    """What the method computes, as LaTeX, and where in its program."""

    tex: Line = Field(description="The equation in LaTeX, without dollar signs")
    says: Line = Field(description="What it says, with its symbols explained, in one or two sentences")
    where: Line = Field(description="Where it stands in the paper")
    function: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)?$", max_length=80)] | None = Field(
        default=None, description="Function of the method's file that computes it; Class.method for a method of a class"
    )


class Entry(Strict):
    """What every entry has."""

    name: Line = Field(description="What the method is called")
    title: Line = Field(description="Title of the paper")
    authors: Names = Field(default=[], description="Authors, as printed")
    year: int = Field(ge=1980, le=2100, description="Year of the venue")
    venue: Line | None = Field(default=None, description="Conference or journal")
    arxiv: Arxiv | None = Field(default=None, description="arXiv id without version")
    doi: Doi | None = Field(default=None, description="DOI without address")
    url: Web | None = Field(default=None, description="Home page, or the paper where it has neither arXiv id nor DOI")
    code: list[Code] = Field(default=[], description="Code of the authors and of others")
    links: list[Link] = Field(default=[], description="Anything else worth reading")
    tags: Slugs = Field(default=[], description="What it does, from the vocabulary")
    builds_on: Slugs = Field(default=[], description="Ids of the entries that it rests on")
    compared_with: Slugs = Field(default=[], description="Ids of the entries that it measures itself against")
    formerly: Slugs = Field(default=[], description="Ids that it had before")
    summary: Prose = Field(description="The idea in our own words")
    when_to_use: Prose | None = Field(default=None, description="When it is a good choice")
    when_not: Prose | None = Field(default=None, description="When it is not")


class Executable(Entry):
    """An entry that a method file may reimplement."""

    start: Literal["trained", "scratch"] | None = Field(default=None, description="Whether it starts from a trained network")
    returns: Literal["smaller", "same", "larger"] | None = Field(default=None, description="Size of the network that it returns")
    equations: list[Equation] = Field(default=[], description="The idea in a few equations, the ones that matter")
    claims: dict[Slug, Claim] = Field(default={}, description="What the paper says that can be measured, by name")
    results: list[Result] = Field(default=[], description="What the paper printed")
    covers: Slugs = Field(default=[], description="Ids of the entries that it treats")

    @model_validator(mode="after")
    def _start_and_returns(self) -> Self:
        if self.claims and (self.start is None or self.returns is None):
            raise ValueError("has claims but not both start and returns; add start: trained | scratch and returns: smaller | same | larger")
        return self

    @model_validator(mode="after")
    def _same_effects(self) -> Self:
        for name, claim in self.claims.items():
            if claim.same_as is None:
                continue
            other, at = self.claims.get(claim.same_as), f"claim {name} is the same_as {claim.same_as}"
            if other is None:
                raise ValueError(f"{at}, which is no claim; correct or remove it")
            if other.kind != "effect" or other.against != claim.against:
                raise ValueError(f"{at}, which is no effect against {claim.against}; one statement has one kind and one alternative")
            if LONGER.index(other.tier) <= LONGER.index(claim.tier):
                raise ValueError(f"{at}, which is of the tier {other.tier}, not longer than {claim.tier}; put same_as on the shorter one")
            if set(other.cases) != set(claim.cases):
                raise ValueError(f"{at}, which has other cases; give both the same")
        return self

    def effects(self) -> dict[str, list[str]]:
        """What the paper says it achieves: every effect's claim, with all that measure it, the longest tier first."""
        mine = {name: claim for name, claim in self.claims.items() if claim.kind == "effect" and claim.same_as is None}
        shorter = sorted(
            (name for name, claim in self.claims.items() if claim.same_as), key=lambda name: -LONGER.index(self.claims[name].tier)
        )
        return {name: [name, *(other for other in shorter if self.claims[other].same_as == name)] for name in mine}


class Paper(Executable):
    """A paper with a technique."""

    authors: Names = Field(min_length=1, description="Authors, as printed")

    @model_validator(mode="after")
    def _findable(self) -> Self:
        if not (self.arxiv or self.doi or self.url):
            raise ValueError("a paper needs one of arxiv, doi, url; add one")
        return self


class Technique(Strict):
    """One thing that a framework offers, and the entry that reimplements it here."""

    name: Line = Field(description="What it is called there")
    entry: Slug | None = Field(default=None, description="Id of the entry that reimplements it here")


class Status(Strict):
    state: Literal["active", "maintained", "unmaintained", "archived"] = Field(description="Whether anybody still works on it")
    last_activity: Annotated[str, StringConstraints(pattern=_DAY)] = Field(description="Day, month or year")
    note: Line | None = Field(default=None, description="What else to know")


class Framework(Executable):
    """A library or tool."""

    url: Web = Field(description="Home page")
    techniques: list[Technique] = Field(default=[], description="What it offers")
    status: Status | None = Field(default=None, description="Whether it is still alive")


class Overview(Entry):
    """A survey, thesis or book chapter: lists what it covers."""

    authors: Names = Field(min_length=1, description="Authors, as printed")
    covers: Slugs = Field(default=[], description="Ids of the entries that it treats")


class Listing(Entry):
    """A repository of models or a list of links."""

    url: Web = Field(description="Home page")
    topics: list[Line] = Field(default=[], description="What it is about")


KINDS: dict[str, type[Entry]] = {
    **dict.fromkeys(METHOD_FAMILIES, Paper), "frameworks": Framework, "overviews": Overview, "lists": Listing,
}  # fmt: skip


class Quantity(Strict):
    """Something that is measured or printed as a number."""

    name: Line = Field(description="What it is called")
    unit: Line | None = Field(default=None, description="Its unit, where it has one")
    direction: Literal["higher", "lower", "none"] = Field(description="Which way is better")

    @property
    def label(self) -> str:
        """Name and unit: "Top-1 error, %"; of a plain number the name."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


class Metric(Quantity):
    """What results are given in."""


class Column(Quantity):
    """A column of a published table."""

    id: Slug = Field(description="Its name in the rows")
    delta_of: Slug | None = Field(default=None, description="The `baseline` value that this column is the change from")


class Row(Strict):
    method: Line = Field(description="Name as printed")
    entry: Slug | None = Field(default=None, description="Id of its entry here")
    values: dict[Slug, Number | None] = Field(description="Column to number; null where none is printed")
    result: dict[Slug, Number] = Field(default={}, description="Absolute values, where printed: delta columns are recomputed from them")
    note: Line | None = Field(default=None, description="What else the table says of it")


class Comparison(Strict):
    """A published table that compares methods, as printed."""

    title: Line = Field(description="What it compares")
    caption: Prose = Field(description="How to read it")
    dataset: Line = Field(description="Data, one of the vocabulary")
    model: Line = Field(description="Network, one of the vocabulary")
    source: Link = Field(description="Where it is printed")
    baseline: dict[Slug, Number] = Field(default={}, description="Numbers of the network before compression")
    columns: list[Column] = Field(min_length=1, description="Columns, in order")
    rows: list[Row] = Field(min_length=1, description="Methods, in order")
    notes: list[Prose] = Field(default=[], description="What else stands below it")

    @model_validator(mode="after")
    def _columns_agree(self) -> Self:
        known = {column.id for column in self.columns}
        for row in self.rows:
            extra = set(row.values) - known
            if extra:
                names = ", ".join(sorted(extra))
                raise ValueError(f"row {row.method!r} has values for {names}, which is no column; add the column or remove the value")
        return self


class Vocabulary(Strict):
    """The closed lists: what a dataset, model, metric or tag may be called."""

    datasets: dict[Line, Line] = Field(description="Data: name to meaning")
    models: dict[Line, Line] = Field(description="Networks: name to meaning")
    metrics: dict[Slug, Metric] = Field(description="Metrics by id")
    tags: dict[Slug, Line] = Field(description="Tags: id to meaning")
