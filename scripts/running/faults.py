"""The faults that are planted in a method: what a tired person does, by class. Each is a change of its syntax tree."""

from __future__ import annotations

import ast
import builtins
import copy
import hashlib
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

CLASSES = ("outcome", "arithmetic", "wiring", "control")
METHOD = {"compress", "build", "pack", "unpack", "prepare"}  # what these reach is the method
MOST = 150  # faults of a method that are planted; of more, an even share of each class

Change = tuple[str, ast.AST | list[ast.stmt]]  # in words, and what takes the place of a node


class Fault(NamedTuple):
    """One planted fault: its class, the line, what was done to it, and the source with it."""

    kind: str
    line: int
    what: str
    code: str


def every(text: str) -> list[Fault]:
    """Every fault that can be planted in a method's source, no two with the same program."""
    tree = ast.parse(text)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    planted = list(_outcomes(text, functions))
    own = reachable(tree, METHOD)
    controls = [node for node in reachable(tree, {name for name in functions if name.startswith("control_")}) if node not in own]
    models = networks_returned(tree)
    for kind, definitions in (("", own), ("control", controls)):
        for definition in definitions:
            planted += _in_definition(tree, definition, kind, models)
    seen = {ast.unparse(tree)}
    return [fault for fault in planted if not (fault.code in seen or seen.add(fault.code))]  # type: ignore[func-returns-value]


def drawn(faults: list[Fault], text: str, most: int = MOST) -> list[Fault]:
    """All faults, or so many: of each class as many as of any other, as far as there are, drawn by a digest of the source."""
    if len(faults) <= most:
        return faults
    groups: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[fault.kind].append(fault)
    chance, left, chosen = random.Random(hashlib.sha256(text.encode()).digest()), most, list[Fault]()
    for number, kind in enumerate(sorted(groups, key=lambda kind: (len(groups[kind]), kind))):
        count = min(len(groups[kind]), -(-left // (len(groups) - number)))
        chosen += chance.sample(groups[kind], count)
        left -= count
    return sorted(chosen, key=faults.index)


def reachable(tree: ast.Module, roots: set[str]) -> list[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a module that the roots use, by name; the Config dataclass is data, not code."""
    known: dict[str, ast.stmt] = {}
    for node in tree.body:
        named = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else _stored(node) if isinstance(node, ast.Assign) else []
        known |= dict.fromkeys(named, node)
    found: dict[str, ast.stmt] = {}
    todo = [name for name in known if name in roots]
    while todo:
        name = todo.pop()
        if name in found or name == "Config":
            continue
        found[name] = known[name]
        todo += [n.id for n in ast.walk(known[name]) if isinstance(n, ast.Name) and n.id in known]
    definitions = [node for node in found.values() if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return sorted(definitions, key=lambda node: node.lineno)


def _outcomes(text: str, functions: dict[str, ast.FunctionDef]) -> Iterator[Fault]:
    """The method returns what it was given, or what a control returns; a control returns what it was given, or the method's network."""
    line = functions["compress"].lineno
    yield Fault("outcome", line, "return the model unchanged", f"{text}\n\ndef compress(model, task, config):\n    return model\n")
    for name, control in functions.items():
        if name.startswith("control_"):
            yield Fault("outcome", line, f"return {name}", text + _SWAP.format(control=name))
            for argument, what in (("model", "the model unchanged"), ("like", "the method's network")):
                code = f"{text}\n\ndef {name}(model, task, config, like):\n    return {argument}\n"
                yield Fault("outcome", control.lineno, f"let {name} return {what}", code)


_SWAP = """

_real = compress
def compress(model, task, config):
    import copy
    return {control}(model, task, config, _real(copy.deepcopy(model), task, config))
"""


# Where faults may stand


def _in_definition(tree: ast.Module, definition: ast.AST, kind: str, models: set[str]) -> Iterator[Fault]:
    if isinstance(definition, ast.FunctionDef):
        place = tree.body.index(definition)
        for line, what, other in earlier(definition, models):
            tree.body[place] = other
            yield Fault(kind or "wiring", line, what, ast.unparse(ast.fix_missing_locations(tree)))
        tree.body[place] = definition
    for parent, name, index, child, inside in list(_sites(definition, [])):
        if isinstance(child, ast.Raise) or is_wording(child):
            continue
        context = Context(parent, name, index, inside, models)
        for group, operators in OPERATORS.items():
            for operator in operators:
                for what, replacement in operator(child, context):
                    before = _put(parent, name, index, replacement)
                    code = ast.unparse(ast.fix_missing_locations(tree))
                    _restore(parent, name, before)
                    yield Fault(kind or group, getattr(child, "lineno", getattr(definition, "lineno", 0)), what, code)


class Context(NamedTuple):
    """Where a node stands: its parent, the functions around it, and the names of functions that return networks."""

    parent: ast.AST
    field: str
    place: int | None
    inside: list[ast.AST]
    models: set[str]


def _sites(node: ast.AST, inside: list[ast.AST]) -> Iterator[tuple[ast.AST, str, int | None, ast.AST, list[ast.AST]]]:
    """(parent, field, index, child, functions around) of everything that runs: no docstrings, annotations or refusals."""
    if isinstance(node, ast.Raise | ast.JoinedStr) or is_wording(node):
        return
    around = [*inside, node] if isinstance(node, ast.FunctionDef | ast.Lambda) else inside
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases") or (name == "body" and refuses(node)):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST):
                yield node, name, index, child, around
                yield from _sites(child, around)


def is_wording(node: ast.AST) -> bool:
    """Docstrings, log messages, and the `strict` of a zip: nothing that a method computes."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or ast.unparse(node.value).startswith("logging.")
    return isinstance(node, ast.keyword) and node.arg == "strict"


def refuses(node: ast.AST) -> bool:
    """An `if` that ends in an error: what it does on the way there is wording."""
    return isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise)


def _put(parent: ast.AST, name: str, index: int | None, child: ast.AST | list[ast.stmt]) -> object:
    """Put something in the place of a node, or of it and of the statement behind it; returns what stood there before."""
    value = getattr(parent, name)
    if index is None:
        setattr(parent, name, child)
    elif isinstance(child, list):
        setattr(parent, name, [*value[:index], *child, *value[index + len(child) :]])
    else:
        setattr(parent, name, [*value[:index], child, *value[index + 1 :]])
    return value


def _restore(parent: ast.AST, name: str, value: object) -> None:
    setattr(parent, name, value)


# Arithmetic

FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OTHER: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
REDUCING = {"sorted", "max", "min", "abs", "round", "sum", "reversed"}  # built-in functions that compute something
MODULES = {"torch", "F", "nn", "np", "math", "nets", "copy", "tensorly", "scipy"}


def terms(node: ast.AST, context: Context) -> Iterator[Change]:
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Add | ast.Sub):
            yield f"drop the term {ast.unparse(node.right)}", node.left
            yield f"drop the term {ast.unparse(node.left)}", node.right
        if type(node.op) in OTHER:
            other = copy.deepcopy(node)
            other.op = OTHER[type(node.op)]()
            yield f"write {ast.unparse(other)}", other


def signs(node: ast.AST, context: Context) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPPED:
        other = copy.deepcopy(node)
        other.ops = [FLIPPED[type(node.ops[0])]()]
        yield f"compare {ast.unparse(other)}", other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not | ast.Invert):
        yield f"drop the sign of {ast.unparse(node)}", node.operand


def constants(node: ast.AST, context: Context) -> Iterator[Change]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield f"write {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        value = node.value + 1 if isinstance(node.value, int) else 2 * node.value or 1.0
        yield f"write {value} for {node.value}", ast.Constant(value)


def arguments(node: ast.AST, context: Context) -> Iterator[Change]:
    if isinstance(node, ast.Call):
        positional = [a for a in node.args if not isinstance(a, ast.Starred)]
        if len(positional) >= 2 and len(positional) == len(node.args) and ast.dump(node.args[0]) != ast.dump(node.args[1]):
            swapped = copy.deepcopy(node)
            swapped.args[0], swapped.args[1] = swapped.args[1], swapped.args[0]
            yield f"swap the arguments of {ast.unparse(node.func)}", swapped
        if isinstance(node.func, ast.Name) and node.func.id in REDUCING and positional:
            yield f"skip the call of {node.func.id}", positional[0]
        if isinstance(node.func, ast.Attribute) and node.func.attr not in WIRED and ast.unparse(node.func.value) not in MODULES:
            yield f"skip the call of .{node.func.attr}", node.func.value
    elif isinstance(node, ast.keyword) and node.arg == "bias" and not isinstance(node.value, ast.Constant):
        yield "drop the bias", ast.keyword("bias", ast.Constant(False))


def sums(node: ast.AST, context: Context) -> Iterator[Change]:
    if isinstance(node, ast.AugAssign):
        yield f"skip {ast.unparse(node)}", ast.Pass()


# Wiring

WIRED = {"train", "eval", "requires_grad_", "detach"}  # calls that say how something is done, not what
SPLITS = {"train": ("validation", "test"), "validation": ("train", "test")}
WHOLE = {"steps", "iterations", "images", "batch", "sweeps", "samples"}  # numbers of things that halve to whole numbers
RATES = {"share", "lr", "rate", "points_lr", "sparse_share"}
NETWORKS = {"model", "like", "teacher", "student", "learner", "small", "thin", "original", "network"}


def stages(node: ast.AST, context: Context) -> Iterator[Change]:
    """A call is skipped, or a statement, or it changes places with the next."""
    called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
    if isinstance(node, ast.Call) and called and node.args and not isinstance(node.args[0], ast.Starred) and not hasattr(builtins, called):
        yield f"skip the call of {called}", node.args[0]
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"skip {ast.unparse(node.value)}", ast.Pass()
    if isinstance(node, ast.Assign) and _stored(node) <= _loaded(node):
        yield f"skip {ast.unparse(node)}", ast.Pass()
    if isinstance(node, ast.Assign | ast.Expr | ast.AugAssign) and context.place is not None and context.field in ("body", "orelse"):
        following = getattr(context.parent, context.field)[context.place + 1 : context.place + 2]
        for other in following:
            mine, theirs = (_stored(one) | _loaded(one) for one in (node, other))
            touch = (_stored(node) | _loaded(node) & _changed(node)) & theirs or _stored(other) & mine
            if isinstance(other, ast.Assign | ast.Expr | ast.AugAssign) and touch and not (_new(node, context) & _loaded(other)):
                yield f"do {ast.unparse(other).splitlines()[0][:60]} first", [other, node]


def _stored(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _loaded(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _changed(node: ast.AST) -> set[str]:
    """Names that a statement may change in place: what it calls a method of, or hands to a function."""
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return {name for call in calls for part in (call.func, *call.args) for name in _loaded(part)}


def _new(node: ast.AST, context: Context) -> set[str]:
    """Names that a statement binds and that nothing before it in its function did."""
    function = context.inside[-1] if context.inside else context.parent
    line = getattr(node, "lineno", 0)
    before = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store) and n.lineno < line}
    before |= {argument.arg for argument in ast.walk(function) if isinstance(argument, ast.arg)}
    return _stored(node) - before


def networks_returned(tree: ast.Module) -> set[str]:
    """Names of a module's functions that return a network."""
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.returns is not None and "Module" in ast.unparse(node.returns)
    } | {"fit", "copied", "replaced", "remove_channels", "deepcopy", "trained"}


def other_networks(node: ast.AST, context: Context) -> Iterator[Change]:
    """Another network that is at hand in the place of this one."""
    if not (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and context.inside):
        return
    here: dict[str, int] = {}
    for function in context.inside:
        for argument in (inner for inner in ast.iter_child_nodes(getattr(function, "args", function)) if isinstance(inner, ast.arg)):
            if argument.arg in NETWORKS or (argument.annotation is not None and "Module" in ast.unparse(argument.annotation)):
                here[argument.arg] = 0
        for inner in ast.walk(function):
            if isinstance(inner, ast.Assign) and isinstance(inner.value, ast.Call) and _called(inner.value) in context.models:
                first = inner.targets[0].elts[0] if isinstance(inner.targets[0], ast.Tuple) else inner.targets[0]
                if isinstance(first, ast.Name):
                    here.setdefault(first.id, inner.lineno)
    if node.id in here:
        for name in (name for name, line in here.items() if name != node.id and line < node.lineno):
            yield f"take {name} for {node.id}", ast.Name(name, ast.Load())


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func).rpartition(".")[2]


def earlier(function: ast.FunctionDef, models: set[str]) -> Iterator[tuple[int, str, ast.FunctionDef]]:
    """A network as it was before it was trained or cut, where the one that came of it is meant."""
    for place, statement in enumerate(function.body):
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call) and _called(statement.value) in models):
            continue
        for name in _stored(statement) & _loaded(statement.value):
            later = [n for s in function.body[place + 1 :] for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name]
            for number, use in enumerate(use for use in later if isinstance(use.ctx, ast.Load)):
                other = copy.deepcopy(function)
                uses = [n for s in other.body[place + 1 :] for n in ast.walk(s) if isinstance(n, ast.Name) and n.id == name]
                [n for n in uses if isinstance(n.ctx, ast.Load)][number].id = "_earlier"
                other.body[place:place] = ast.parse(f"import copy\n_earlier = copy.deepcopy({name})").body
                yield use.lineno, f"take {name} as it was before line {statement.lineno}", other


def modes(node: ast.AST, context: Context) -> Iterator[Change]:
    """Training mode for evaluation mode and back; a frozen part that learns, a learning one that is frozen."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in ("train", "eval"):
            other = {"train": "eval", "eval": "train"}[node.func.attr]
            yield f"write .{other}() for .{node.func.attr}()", ast.Call(ast.Attribute(node.func.value, other, ast.Load()), [], [])
        elif node.func.attr == "requires_grad_":
            yield "skip the call of .requires_grad_", node.func.value
        elif node.func.attr == "detach":
            yield "skip the call of .detach", node.func.value


def splits(node: ast.AST, context: Context) -> Iterator[Change]:
    called = isinstance(context.parent, ast.Call) and context.field == "func"
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and node.attr in SPLITS and not called:
        for other in SPLITS[node.attr]:
            yield f"take the {other} images", ast.Attribute(node.value, other, ast.Load())


def budgets(node: ast.AST, context: Context) -> Iterator[Change]:
    """Half of the steps, the share or the rate; a setting that is forgotten; half of a training."""
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
        if node.attr in WHOLE and isinstance(node.value, ast.Name):
            yield f"halve {ast.unparse(node)}", ast.BinOp(node, ast.FloorDiv(), ast.Constant(2))
        elif node.attr in RATES:
            yield f"halve {ast.unparse(node)}", ast.BinOp(node, ast.Div(), ast.Constant(2))
    elif isinstance(node, ast.keyword) and node.arg in RATES and not isinstance(node.value, ast.Attribute):
        yield f"halve {node.arg}", ast.keyword(node.arg, ast.BinOp(node.value, ast.Div(), ast.Constant(2)))
    elif isinstance(node, ast.Call):
        for place, keyword in enumerate(node.keywords):
            if keyword.arg and keyword.arg != "strict":
                other = copy.deepcopy(node)
                del other.keywords[place]
                yield f"forget {ast.unparse(keyword)}", other
        if _called(node) == "fit" and not any(keyword.arg == "share" for keyword in node.keywords):
            other = copy.deepcopy(node)
            other.keywords.append(ast.keyword("share", ast.Constant(0.5)))
            yield "train half as long", other


def gradients(node: ast.AST, context: Context) -> Iterator[Change]:
    """A term of a loss through which no gradient flows."""
    function = context.inside[-1] if context.inside else None
    losing = isinstance(function, ast.Lambda) or "loss" in getattr(function, "name", "")
    added = isinstance(context.parent, ast.BinOp) and isinstance(context.parent.op, ast.Add)
    if losing and added and isinstance(node, ast.Call | ast.Name):
        call = ast.Call(ast.Attribute(node, "detach", ast.Load()), [], [])
        yield f"detach {ast.unparse(node)[:60]}", call


def loops(node: ast.AST, context: Context) -> Iterator[Change]:
    """Every turn of a loop works on the first thing."""
    if isinstance(node, ast.For) and isinstance(node.target, ast.Name | ast.Tuple):
        other = copy.deepcopy(node)
        loaded = copy.deepcopy(node.target)
        for inner in ast.walk(loaded):
            if isinstance(inner, ast.Name | ast.Tuple):
                inner.ctx = ast.Load()
        first = f"_first.append({ast.unparse(loaded)})\n{ast.unparse(node.target)} = _first[0]"
        other.body = [*ast.parse(first).body, *other.body]
        yield f"always take the first {ast.unparse(node.target)}", ast.If(ast.Constant(True), [*ast.parse("_first = []").body, other], [])


OPERATORS: dict[str, tuple[Callable[[ast.AST, Context], Iterator[Change]], ...]] = {
    "arithmetic": (terms, signs, constants, arguments, sums),
    "wiring": (stages, other_networks, modes, splits, budgets, gradients, loops),
}
