"""What a build decides by the machine that it runs on: whether Orbit needs pyghostty there.

pyghostty, which live sessions need, is published as wheels alone, and a requirement that pip cannot
fulfil fails the whole installation. The markers of a requirement (PEP 508) see neither the C library
nor the version of macOS, so they cannot leave out musl, an old glibc or an old macOS. Therefore the
requirements are decided where the wheel is built: with pyghostty, for a platform that it has a wheel
for; or without, for `any`. Where no wheel of ours fits, pip builds one from the sdist.
"""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface
from packaging.tags import sys_tags


def platform_of(wanted: list[str]) -> str:
    """Return the platform of `wanted` that this interpreter can use wheels of, "" if there is none."""
    supported = {tag.platform for tag in sys_tags()}
    return next((platform for platform in wanted if platform in supported), "")


class Dependencies(MetadataHookInterface):
    """Sets the requirements: those of every machine, and pyghostty where it has a wheel."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set `dependencies` to `everywhere`, and on one of `platforms` to `there` too."""
        there = self.config["there"] if platform_of(self.config["platforms"]) else []
        metadata["dependencies"] = [*self.config["everywhere"], *there]


class Targets(BuildHookInterface[Any]):
    """Makes wheel and sdist say for which machines their requirements are."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Tag a wheel with its platform; leave the requirements out of an sdist, as dynamic (PEP 643)."""
        if self.target_name == "wheel":
            platforms = self.metadata.hatch.metadata.hook_config["custom"]["platforms"]
            build_data["tag"] = f"py3-none-{platform_of(platforms) or 'any'}"
        else:  # if any stood in its PKG-INFO, hatchling would take them from there, and not ask the hook again
            self.metadata.core.dependencies.clear()
            self.metadata.core.optional_dependencies.clear()
            self.metadata.core.dynamic.extend(["dependencies", "optional-dependencies"])
