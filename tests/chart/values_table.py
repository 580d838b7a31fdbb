"""The table of all values in the chart's README, from the comments of values.yaml.

values_table.py            prints the table
"""

import json

import rendering
import yaml

BEGIN = "<!-- values: written by tests/chart/write.py -->\n"
END = "<!-- end of values -->\n"


class Row:
    def __init__(self, path, description, default):
        self.path, self.description, self.default = path, description, default

    def __str__(self):
        default = f"`{self.default}`" if len(self.default) <= 60 else "see values.yaml"
        return f"| `{self.path}` | {default.replace('|', chr(92) + '|')} | {self.description.replace('|', chr(92) + '|')} |"


def described():
    """Path of each value with a description, in the order of the file."""
    found, stack, pending = {}, [], None
    for line in (rendering.CHART / "values.yaml").read_text().splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            pending = text.removeprefix("# -- ")
        if not text or text.startswith(("#", "- ")):
            continue
        depth = (len(line) - len(line.lstrip())) // 2
        stack = [*stack[:depth], text.split(":")[0]]
        if pending:
            found[".".join(stack)] = pending
        pending = None
    return found


def undescribed(values, paths, prefix=""):
    """Values that neither they nor anything above them describes."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if path in paths:
            continue
        if isinstance(value, dict) and value:
            yield from undescribed(value, paths, f"{path}.")
        else:
            yield path


def at(values, path):
    for name in path.split("."):
        values = values[name]
    return values


def values():
    return yaml.safe_load((rendering.CHART / "values.yaml").read_text())


def rows():
    found = values()
    return [Row(path, text, json.dumps(at(found, path))) for path, text in described().items()]


def table():
    lines = ["| value | default | meaning |", "|---|---|---|", *map(str, rows())]
    return "\n".join(lines) + "\n"


def with_table(readme):
    before, rest = readme.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    print(table(), end="")
