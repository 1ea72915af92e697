"""A filter's predicates -> the conditions that engines check, under a catalogue's attributes. Does not read JSON (`filters.parser`)."""

import math

from matinee.errors import FilterError
from matinee.filters.attributes import Attribute, Attributes, describe, payload_key, words
from matinee.filters.conditions import All, Condition, During, Equal, Missing, Near, Not, Some, Within, any_of
from matinee.filters.parser import Group, Node, Predicate

_VALUES: dict[str, type] = {"keyword": str, "integer": int, "boolean": bool}


def resolve(node: Node, attributes: Attributes) -> Condition:
    if isinstance(node, Group):
        parts = tuple(resolve(part, attributes) for part in node.of)
        return Not(parts[0]) if node.operator == "not" else Some(parts) if node.operator == "or" else All(parts)
    attribute = attributes.get(node.name)
    if attribute is None:
        raise FilterError(node.path, f"no attribute of this catalogue; there are: {describe(attributes)}")
    key = payload_key(node.name, attribute)
    match node.operator:
        case "exists":
            return Not(Missing(key))
        case "missing":
            return Missing(key)
        case "range":
            return _range(node, attribute, key, attributes)
        case "near" if attribute.type == "geo":
            return Near(key, *node.operand)
        case "match" if attribute.type == "text":
            return All(tuple(Equal(key, word) for word in words(node.operand[0])))
        case "any" | "all" | "none" if attribute.type in _VALUES:
            return _resolve_list(node, attribute, key, attributes)
    raise _wrong_type(node, attribute, attributes, f"{node.operator} can't be asked of it")


def _resolve_list(node: Predicate, attribute: Attribute, key: str, attributes: Attributes) -> Condition:
    kind = _VALUES[attribute.type]
    # JSON has one kind of number: 3.0 is a whole one.
    values = tuple(int(v) if kind is int and isinstance(v, float) and v.is_integer() else v for v in node.operand)
    for value in values:
        if type(value) is not kind:
            raise _wrong_type(node, attribute, attributes, f"{value!r} is no value of it")
    if node.operator == "all":
        return All(tuple(Equal(key, value) for value in values))
    condition = any_of(key, values)
    return Not(condition) if node.operator == "none" else condition


def _range(node: Predicate, attribute: Attribute, key: str, attributes: Attributes) -> Condition:
    limits = dict(node.operand)
    dates = any(isinstance(value, str) for value in limits.values())
    match attribute.type:
        case "datetime" if dates:
            return During(key, **limits)
        case "float" if not dates:
            return Within(key, **limits)
        case "integer" if not dates:
            # An index of integers cuts a fractional limit towards zero, which would let 1999 pass "at least 1999.5".
            low = [math.ceil(limits["gte"])] if "gte" in limits else []
            low += [math.floor(limits["gt"]) + 1] if "gt" in limits else []
            high = [math.floor(limits["lte"])] if "lte" in limits else []
            high += [math.ceil(limits["lt"]) - 1] if "lt" in limits else []
            return Within(key, gte=max(low, default=None), lte=min(high, default=None))
    raise _wrong_type(node, attribute, attributes, f"a range of {'dates' if dates else 'numbers'} can't be asked of it")


def _wrong_type(node: Predicate, attribute: Attribute, attributes: Attributes, problem: str) -> FilterError:
    return FilterError(node.path, f"{node.name} is of type {attribute.type}, and {problem}; the attributes are: {describe(attributes)}")
