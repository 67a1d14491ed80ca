"""Reads C just well enough for the style test: functions, declarations, includes and words.

Comments, strings and preprocessor lines are blanked first, line breaks kept, so that every
position in the blanked text has its line number. What stands at brace depth 0 is then cut into
declarations (ending in ';') and definitions (ending in '}').
"""
import bisect
import collections
import re

Function = collections.namedtuple("Function", "name line lines_count static")

TOKENS = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)', re.MULTILINE)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)")
DEFINED = re.compile(r"([A-Za-z_]\w*)\s*\(")
VARIABLE = re.compile(r"([A-Za-z_]\w*)\s*(?:\[[^\]]*\]\s*)*;$")
TYPEDEF = re.compile(r"\btypedef\s+(?:struct|union|enum)\b")
NOT_FUNCTIONS = {"static_assert", "_Static_assert"}


class Unreadable(Exception):
    def __init__(self, line, text):
        super().__init__(text)
        self.line, self.text = line, text


def blank(text):
    return re.sub(r"[^\n]", " ", text)


def blank_token(match):
    token = match.group(0)
    if token[0] in "\"'":
        return token[0] + blank(token[1:-1]) + token[0]
    return blank(token)


class Source:
    def __init__(self, text):
        self.lines_count = text.count("\n")
        no_comments = TOKENS.sub(
            lambda m: m.group(0) if m.group(0)[0] in "\"'" else blank(m.group(0)), text)
        self.includes = []
        self.code = TOKENS.sub(blank_token, text)
        self.code = ATTRIBUTE.sub(lambda m: blank(m.group(0)), self.code)
        self.starts = [0] + [m.end() for m in re.finditer("\n", text)]
        for m in INCLUDE.finditer(no_comments):
            self.includes.append((self.line_at(m.start()), m.group(1) or m.group(2),
                                  m.group(1) is not None))
        self.plain = DIRECTIVE.sub(lambda m: blank(m.group(0)), self.code)
        self.functions, self.declarations = [], []
        self._cut()
        self.struct_typedefs = [self.line_at(m.start()) for m in TYPEDEF.finditer(self.plain)]

    def line_at(self, position):
        return bisect.bisect_right(self.starts, position)

    def find_word(self, word, called_only):
        """Lines where the identifier stands, macros included; not as a member (x.word, x->word)."""
        name = re.escape(word[:-1]) + r"\w*" if word.endswith("*") else re.escape(word)
        call = r"\s*\(" if called_only else ""
        pattern = re.compile(rf"(?<![\w.])(?<!->){name}\b{call}")
        include_lines = {line for line, _, _ in self.includes}
        lines = (self.line_at(m.start()) for m in pattern.finditer(self.code))
        return [line for line in lines if line not in include_lines]

    def _cut(self):
        depth, start, body_open = 0, 0, None
        for m in re.finditer(r"[{};]", self.plain):
            position, mark = m.start(), m.group(0)
            if mark == "{":
                if depth == 0:
                    body_open = position
                depth += 1
            elif mark == "}":
                depth -= 1
                if depth < 0:
                    raise Unreadable(self.line_at(position), "a closing brace too many")
                if depth == 0 and self._definition(start, body_open, position):
                    start = position + 1
            elif depth == 0:
                self._declaration(start, position + 1)
                start = position + 1
        if depth != 0:
            raise Unreadable(self.lines_count, "an opening brace is never closed")

    def _begin(self, start, end):
        """The position of the first word in a stretch."""
        return start + len(self.plain[start:end]) - len(self.plain[start:end].lstrip())

    def _definition(self, start, body_open, end):
        """Notes a function; false for structs, enums and initializers, which run on to ';'."""
        head = self.plain[start:body_open]
        name = DEFINED.search(head)
        if not head.rstrip().endswith(")") or "=" in head or not name:
            return False
        line = self.line_at(self._begin(start, body_open))
        static = re.search(r"\bstatic\b", head) is not None
        self.functions.append(Function(name.group(1), line, self.line_at(end) - line + 1, static))
        return True

    def _declaration(self, start, end):
        """Notes a prototype or an extern variable."""
        text = self.plain[start:end]
        if "{" in text or "=" in text or re.search(r"\b(?:static|typedef)\b", text):
            return
        line = self.line_at(self._begin(start, end))
        name = DEFINED.search(text)
        if name is None and re.search(r"\bextern\b", text):
            name = VARIABLE.search(text.strip())
        if name and name.group(1) not in NOT_FUNCTIONS:
            self.declarations.append(Function(name.group(1), line, 0, False))
