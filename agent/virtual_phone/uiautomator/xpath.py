"""XPath over the nodes of the display: the part of XPath 1.0 that tests use, and a few functions of 2.0.

Location paths with the axes child, descendant, descendant-or-self, self, parent, ancestor, ancestor-or-self,
following-sibling and preceding-sibling, predicates, unions, comparisons, ``and``, ``or`` and the functions listed
in ``_FUNCTIONS``. Everything else is refused as unsupported.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agent.virtual_phone.uiautomator.node import Node
from agent.virtual_phone.uiautomator.selection import SelectorInvalid, SelectorUnsupported

MAX_EXPRESSION_CHARACTERS = 10_000
MAX_DEPTH = 50

_TOKEN = re.compile(
    r"\s*(?P<token>\"[^\"]*\"|'[^']*'|\d+(?:\.\d+)?|//|::|\.\.|!=|<=|>=|[/\[\]().@,|=<>*]|[A-Za-z_][\w.\-$]*)"
)
Value = str | float | bool | list[Node]


@dataclass(frozen=True, slots=True)
class _Context:
    node: Node
    position: int = 1
    size: int = 1


Expression = Callable[[_Context], Value]
Step = Callable[[list[Node]], list[Node]]


def find(root: Node, expression: str, context: Node) -> list[Node]:
    """Return the nodes that an expression selects, in the order of the document; raises `SelectorInvalid`."""
    value = _Parser(expression, root).parse()(_Context(context))
    if not isinstance(value, list):
        raise SelectorInvalid(f"{expression} does not select nodes")
    return value


class _Parser:
    def __init__(self, expression: str, root: Node) -> None:
        if len(expression) > MAX_EXPRESSION_CHARACTERS:
            raise SelectorInvalid("expression too long")
        # The document is above the root element, so that /hierarchy and //hierarchy find it.
        self._document = Node(key="document", class_name="", package="", bounds=root.bounds)
        self._document.children.append(root)
        self._order = {id(node): position for position, node in enumerate(self._document.walk())}
        self._tokens = _tokenize(expression)
        self._at = 0
        self._depth = 0

    def parse(self) -> Expression:
        expression = self._or()
        if self._peek():
            raise SelectorInvalid(f"unexpected {self._peek()!r}")
        return expression

    def _peek(self, ahead: int = 0) -> str:
        return self._tokens[self._at + ahead] if self._at + ahead < len(self._tokens) else ""

    def _take(self, expected: str = "") -> str:
        token = self._peek()
        if not token or (expected and token != expected):
            raise SelectorInvalid(f"expected {expected or 'more'!r}, found {token or 'the end'!r}")
        self._at += 1
        return token

    def _or(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise SelectorInvalid("nested too deeply")
        terms = [self._and()]
        while self._peek() == "or":
            self._take()
            terms.append(self._and())
        self._depth -= 1
        return terms[0] if len(terms) == 1 else lambda context: any(_truth(term(context)) for term in terms)

    def _and(self) -> Expression:
        terms = [self._comparison()]
        while self._peek() == "and":
            self._take()
            terms.append(self._comparison())
        return terms[0] if len(terms) == 1 else lambda context: all(_truth(term(context)) for term in terms)

    def _comparison(self) -> Expression:
        left = self._union()
        if self._peek() not in _COMPARISONS:
            return left
        compare = _COMPARISONS[self._take()]
        right = self._union()
        return lambda context: compare(left(context), right(context))

    def _union(self) -> Expression:
        terms = [self._path()]
        while self._peek() == "|":
            self._take()
            terms.append(self._path())
        if len(terms) == 1:
            return terms[0]
        return lambda context: self._in_order(node for term in terms for node in _nodes(term(context)))

    def _path(self) -> Expression:
        word = self._peek()
        if word[:1] in ("'", '"'):
            text = self._take()[1:-1]
            return lambda _: text
        if word[:1].isdigit():
            number = float(self._take())
            return lambda _: number
        if word == "@":
            return self._attribute()
        if word == "(":
            self._take()
            inner = self._or()
            self._take(")")
            return self._filtered(inner)
        if self._peek(1) == "(" and word not in _NODE_TYPES:
            return self._function()
        return self._location(lambda context: [context.node])

    def _filtered(self, start: Expression) -> Expression:
        """Read what may follow a parenthesis: predicates over the whole, then more of a path."""
        predicates = self._predicates()
        if not predicates and self._peek() not in ("/", "//"):
            return start
        filtered: Expression = lambda context: _keep(_nodes(start(context)), predicates)  # noqa: E731
        return self._location(filtered, is_continued=True) if self._peek() in ("/", "//") else filtered

    def _location(self, start: Expression, *, is_continued: bool = False) -> Expression:
        steps: list[Step] = []
        if self._peek() in ("/", "//") and not is_continued:
            document = self._document
            start = lambda _: [document]  # noqa: E731
            if self._peek() == "/":
                self._take()
                if not self._peek():
                    return start
        elif not is_continued:
            steps.append(self._step())
        if not steps and self._peek() not in ("/", "//"):
            steps.append(self._step())
        while self._peek() in ("/", "//"):
            if self._take() == "//":
                steps.append(self._axis_step("descendant-or-self", "*", []))
            if self._peek() == "@":
                attribute = self._attribute()
                return self._attribute_of(start, steps, attribute)
            steps.append(self._step())

        def evaluate(context: _Context) -> Value:
            nodes = _nodes(start(context))
            for step in steps:
                nodes = step(nodes)
            return [node for node in nodes if node is not self._document]

        return evaluate

    def _attribute_of(self, start: Expression, steps: list[Step], attribute: Expression) -> Expression:
        def evaluate(context: _Context) -> Value:
            nodes = _nodes(start(context))
            for step in steps:
                nodes = step(nodes)
            return attribute(_Context(nodes[0])) if nodes else ""

        return evaluate

    def _step(self) -> Step:
        if self._peek() in (".", ".."):
            axis = "self" if self._take() == "." else "parent"
            return self._axis_step(axis, "*", self._predicates())
        axis = "child"
        if self._peek(1) == "::":
            axis = self._take()
            self._take("::")
        if axis not in _AXES:
            raise SelectorUnsupported(f"axis {axis}")
        test = self._take()
        if test in _NODE_TYPES and self._peek() == "(":
            self._take("(")
            self._take(")")
            test = "*"
        elif test != "*" and not (test[0].isalpha() or test[0] == "_"):
            raise SelectorInvalid(f"unexpected {test!r}")
        return self._axis_step(axis, test, self._predicates())

    def _axis_step(self, axis: str, test: str, predicates: list[Expression]) -> Step:
        walk = _AXES[axis]

        def step(nodes: list[Node]) -> list[Node]:
            found: list[Node] = []
            for node in nodes:
                matching = [other for other in walk(node) if test == "*" or other.class_name == test]
                found += _keep(matching, predicates)
            return self._in_order(found)

        return step

    def _predicates(self) -> list[Expression]:
        predicates = []
        while self._peek() == "[":
            self._take()
            predicates.append(self._or())
            self._take("]")
        return predicates

    def _attribute(self) -> Expression:
        self._take("@")
        name = self._take()
        # A missing attribute is an empty set of nodes, which is false and equals nothing; an empty text is neither.
        return lambda context: context.node.attributes().get(name, [])

    def _function(self) -> Expression:
        name = self._take()
        function = _FUNCTIONS.get(name)
        if function is None:
            raise SelectorUnsupported(f"function {name}()")
        self._take("(")
        arguments: list[Expression] = []
        while self._peek() != ")":
            if arguments:
                self._take(",")
            arguments.append(self._or())
        self._take(")")
        return lambda context: function(context, [argument(context) for argument in arguments])

    def _in_order(self, nodes: Iterator[Node] | list[Node]) -> list[Node]:
        unique = {id(node): node for node in nodes}
        return sorted(unique.values(), key=lambda node: self._order[id(node)])


def _tokenize(expression: str) -> list[str]:
    tokens, at = [], 0
    expression = expression.strip()
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            raise SelectorInvalid(f"cannot read {expression[at : at + 20]!r}")
        tokens.append(found["token"])
        at = found.end()
    if not tokens:
        raise SelectorInvalid("empty expression")
    return tokens


def _keep(nodes: list[Node], predicates: list[Expression]) -> list[Node]:
    for predicate in predicates:
        kept = []
        for position, node in enumerate(nodes, start=1):
            value = predicate(_Context(node, position, len(nodes)))
            is_kept = value == position if isinstance(value, float) else _truth(value)
            if is_kept:
                kept.append(node)
        nodes = kept
    return nodes


def _nodes(value: Value) -> list[Node]:
    if not isinstance(value, list):
        raise SelectorInvalid("a set of nodes is needed")
    return value


def _truth(value: Value) -> bool:
    return bool(value)


def _text(value: Value) -> str:
    if isinstance(value, list):
        return value[0].text if value else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(value)
    return value


def _number(value: Value) -> float:
    try:
        return float(value) if isinstance(value, bool | float) else float(_text(value))
    except ValueError:
        return float("nan")


def _equal(left: Value, right: Value) -> bool:
    if left == [] or right == []:
        return False
    if isinstance(left, bool) or isinstance(right, bool):
        return _truth(left) == _truth(right)
    if isinstance(left, float) or isinstance(right, float):
        return _number(left) == _number(right)
    return _text(left) == _text(right)


_COMPARISONS: dict[str, Callable[[Value, Value], bool]] = {
    "=": _equal,
    "!=": lambda left, right: left != [] and right != [] and not _equal(left, right),
    "<": lambda left, right: _number(left) < _number(right),
    ">": lambda left, right: _number(left) > _number(right),
    "<=": lambda left, right: _number(left) <= _number(right),
    ">=": lambda left, right: _number(left) >= _number(right),
}


def _ancestors(node: Node) -> Iterator[Node]:
    while node.parent is not None:
        node = node.parent
        yield node


def _siblings(node: Node) -> list[Node]:
    return node.parent.children if node.parent else [node]


_NODE_TYPES = ("node", "text")
_AXES: dict[str, Callable[[Node], list[Node]]] = {
    "child": lambda node: list(node.children),
    "descendant": lambda node: list(node.walk())[1:],
    "descendant-or-self": lambda node: list(node.walk()),
    "self": lambda node: [node],
    "parent": lambda node: [node.parent] if node.parent else [],
    "ancestor": lambda node: list(_ancestors(node)),
    "ancestor-or-self": lambda node: [node, *_ancestors(node)],
    "following-sibling": lambda node: _siblings(node)[_siblings(node).index(node) + 1 :],
    # Positions on a reverse axis count from the node backwards.
    "preceding-sibling": lambda node: _siblings(node)[: _siblings(node).index(node)][::-1],
}


def _require(arguments: list[Value], *counts: int) -> None:
    if len(arguments) not in counts:
        raise SelectorInvalid(f"a function has {len(arguments)} arguments, not {' or '.join(map(str, counts))}")


def _contains(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 2)
    return _text(arguments[1]) in _text(arguments[0])


def _starts_with(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 2)
    return _text(arguments[0]).startswith(_text(arguments[1]))


def _ends_with(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 2)
    return _text(arguments[0]).endswith(_text(arguments[1]))


def _matches(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 2)
    try:
        return re.search(_text(arguments[1]), _text(arguments[0])) is not None
    except re.error as error:
        raise SelectorInvalid(f"bad regular expression: {error}") from error


def _not(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 1)
    return not _truth(arguments[0])


def _normalize_space(context: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 0, 1)
    return " ".join(_text(arguments[0] if arguments else [context.node]).split())


def _string_length(context: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 0, 1)
    return float(len(_text(arguments[0] if arguments else [context.node])))


def _lower_case(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 1)
    return _text(arguments[0]).lower()


def _upper_case(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 1)
    return _text(arguments[0]).upper()


def _translate(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 3)
    text, old, new = (_text(argument) for argument in arguments)
    table = {ord(character): new[at] if at < len(new) else None for at, character in enumerate(old)}
    return text.translate(table)


def _count(_: _Context, arguments: list[Value]) -> Value:
    _require(arguments, 1)
    return float(len(_nodes(arguments[0])))


_FUNCTIONS: dict[str, Callable[[_Context, list[Value]], Value]] = {
    "concat": lambda _, arguments: "".join(map(_text, arguments)),
    "contains": _contains,
    "count": _count,
    "ends-with": _ends_with,
    "false": lambda _, __: False,
    "last": lambda context, _: float(context.size),
    "local-name": lambda context, _: context.node.class_name,
    "lower-case": _lower_case,
    "matches": _matches,
    "name": lambda context, _: context.node.class_name,
    "normalize-space": _normalize_space,
    "not": _not,
    "position": lambda context, _: float(context.position),
    "starts-with": _starts_with,
    "string-length": _string_length,
    "translate": _translate,
    "true": lambda _, __: True,
    "upper-case": _upper_case,
}
