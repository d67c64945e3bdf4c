"""The workbench is started some hundred times: its style sheets are parsed once in a process."""

import functools

from textual.css.stylesheet import Stylesheet

parse_rules, parsed = Stylesheet._parse_rules, {}


@functools.wraps(parse_rules)
def parse_rules_once(self, css, read_from, is_default_rules=False, tie_breaker=0, scope=""):
    key = (frozenset(self._variables.items()), css, read_from, is_default_rules, tie_breaker, scope)
    if key not in parsed:
        parsed[key] = parse_rules(self, css, read_from, is_default_rules, tie_breaker, scope)
    return parsed[key]


Stylesheet._parse_rules = parse_rules_once
