"""Hold the pins against the list of published weaknesses: exit code 1 where one is affected and not accepted.

python .ci/audit.py [CONSTRAINTS [ADVISORIES]]
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]


def audit(constraints: Path, advisories: Path) -> list[str]:
    """A line for each pin that an advisory affects and nobody accepted."""
    pins = [Requirement(line) for line in constraints.read_text().splitlines() if line and not line.startswith("#")]
    found = []
    for advisory in tomllib.loads(advisories.read_text())["advisory"]:
        affected = SpecifierSet(advisory["affected"])
        for pin in pins:
            version = next(iter(pin.specifier)).version
            if canonicalize_name(pin.name) != canonicalize_name(advisory["package"]):
                continue
            if affected.contains(version, prereleases=True) and not advisory.get("accepted"):
                found.append(f"{pin.name} {version}: {advisory['id']}, {advisory['about']} ({advisory['affected']})")
    return found


def main() -> int:
    """Print what was found."""
    given = [Path(argument) for argument in sys.argv[1:]]
    constraints, advisories = [*given, *[ROOT / "constraints.txt", ROOT / "docs" / "advisories.toml"][len(given) :]]
    found = audit(constraints, advisories)
    print("\n".join(found) or f"{constraints}: no pin is on {advisories}")
    if found:
        print(
            "Move these pins (make constraints UPGRADE='--upgrade-package NAME'), or accept them there with a reason."
        )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
