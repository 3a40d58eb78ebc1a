"""What clients asked of a store, what they were answered, and what may therefore be found in it later.

A `World` is what a store holds, in the clients' own words: each session carries a token of
its client in its command, each workspace one in its layout, each snapshot is known by a
digest of its bytes. So the world that a call leads to is known before it is sent, and after
a crash exactly two worlds are right: the one before the call that was not answered, and the
one after it. Ids and times come with the answers and are compared as well.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from faults.contents import STATUSES, Call, Found, Key, World, digest


@dataclass(frozen=True)
class Step:
    """A call: when it was sent and answered (None: never), and the world that it leads to."""

    sent_at: int
    answered_at: int | None
    world: World
    facts: dict[Key, tuple[str, str]]


@dataclass
class Plan:
    """A call that makes sense now, the world after it, and the key of what it makes."""

    method: str
    params: dict[str, Any]
    world: World
    made: Key | None = None


class Author:
    """One client that changes what is its own, one call at a time, and remembers.

    Args:
        name: What its tokens begin with.
        seed: Of its choices.
        position: Tells the present point of the order in which things reach the disk.
    """

    def __init__(self, name: str, seed: int, position: Callable[[], int] = lambda: 0) -> None:
        self.name = name
        self.world: World = {}
        self.facts: dict[Key, tuple[str, str]] = {}
        self.steps: list[Step] = [Step(0, 0, {}, {})]
        self.answered = 0
        self._random = random.Random(seed)
        self._position = position
        self._made = 0
        self._screen = b""

    def step(self, call: Call) -> None:
        """Make one call; what `call` raises leaves it without an answer."""
        plan = self._plan()
        sent_at = self._position()
        self.steps.append(Step(sent_at, None, plan.world, self.facts))
        answer = call(plan.method, **plan.params)
        if plan.made is not None:
            born = "snapshot_at" if plan.made[0] == "snapshot" else "created_at"
            self.facts = {**self.facts, plan.made: (answer["id"], answer[born])}
        self.world = plan.world
        self.steps[-1] = Step(sent_at, self._position(), plan.world, self.facts)
        self.answered += 1

    def right_worlds(self, position: int) -> list[Step]:
        """Return what may be there where the disk got as far as `position`."""
        answered = [
            index
            for index, step in enumerate(self.steps)
            if step.answered_at is not None and step.answered_at <= position
        ]
        last = answered[-1]
        rest = self.steps[last + 1 : last + 2]
        return [self.steps[last], *(step for step in rest if step.sent_at <= position)]

    def wrong(self, found: Found, position: int = 0) -> str:
        """Compare with what is there; return what is wrong, or nothing."""
        mine = found.of(self.name)
        right = self.right_worlds(position)
        for step in right:
            if mine.world == step.world and all(mine.facts[key] == fact for key, fact in self._kept(step)):
                return ""
        return f"{self.name}: {_difference(right[0].world, mine.world)}"

    def adopt(self, found: Found) -> None:
        """Go on from what was found after a crash."""
        mine = found.of(self.name)
        self.world, self.facts = mine.world, mine.facts
        self.steps = [Step(0, 0, self.world, self.facts)]

    def _kept(self, step: Step) -> Iterator[tuple[Key, tuple[str, str]]]:
        return ((key, fact) for key, fact in step.facts.items() if key in step.world)

    # What it does next.

    def _plan(self) -> Plan:
        names = ["create"] * 6 + ["status"] * 5 + ["snapshot"] * 8 + ["rename"] * 2 + ["delete", "drop_snapshot"]
        names += [
            "create_workspace",
            "layout",
            "layout",
            "rename_workspace",
            "move",
            "move",
            "front",
            "delete_workspace",
        ]
        while True:
            plan = getattr(self, f"_{self._random.choice(names)}")()
            if plan is not None:
                return plan

    def _token(self) -> str:
        self._made += 1
        return f"{self.name}:{self._made}"

    def _any(self, kind: str) -> Key | None:
        found = sorted(key for key in self.world if key[0] == kind)
        return self._random.choice(found) if found else None

    def _id(self, key: Key) -> str:
        return self.facts[key][0]

    def _create(self) -> Plan:
        token, kind = self._token(), self._random.choice(["local", "ssh"])
        workspace = self._any("workspace") if self._random.random() < 0.5 else None
        config = {"session_type": kind, "command": token, **({"host": "example.org"} if kind == "ssh" else {})}
        if workspace is not None:
            config["workspace_id"] = self._id(workspace)
        key = ("session", token)
        value = (token, "active", kind, workspace and workspace[1])
        return Plan("session.create", {"config": config, "name": token}, {**self.world, key: value}, key)

    def _status(self) -> Plan | None:
        key = self._any("session")
        if key is None or self.world[key][1] == "terminated":
            return None
        name, status, kind, place = self.world[key]
        new = self._random.choice([one for one in STATUSES if one != status])
        return Plan(
            "session.update_status", {"id": self._id(key), "status": new}, {**self.world, key: (name, new, kind, place)}
        )

    def _snapshot(self) -> Plan | None:
        key = self._any("session")
        if key is None:
            return None
        fresh = self._random.randbytes(self._random.choice([100, 3_000, 20_000]))
        self._screen = (self._screen + fresh)[-60_000:]
        history = self._random.choice([b"", self._screen[:500] + fresh[:20]])
        size = self._random.randint(20, 200)
        params: dict[str, Any] = {
            "session_id": self._id(key),
            "terminal_buffer": base64.b64encode(self._screen).decode(),
            "cols": size,
            "rows": 24,
        }
        if history:
            params["scrollback"] = base64.b64encode(history).decode()
        made = ("snapshot", f"{key[1]}/{digest(self._screen, history)}")
        return Plan("snapshot.save", params, {**self.world, made: (key[1], size, 24)}, made)

    def _rename(self) -> Plan | None:
        key = self._any("session")
        if key is None:
            return None
        name = self._random.choice([None, self._token()])
        return Plan(
            "session.rename", {"id": self._id(key), "name": name}, {**self.world, key: (name, *self.world[key][1:])}
        )

    def _delete(self) -> Plan | None:
        key = self._any("session")
        if key is None:
            return None
        world = {k: v for k, v in self.world.items() if k != key and (k[0] != "snapshot" or v[0] != key[1])}
        return Plan("session.delete", {"id": self._id(key)}, _without_front(world, key[1]))

    def _drop_snapshot(self) -> Plan | None:
        key = self._any("snapshot")
        if key is None:
            return None
        return Plan("snapshot.delete", {"id": self._id(key)}, {k: v for k, v in self.world.items() if k != key})

    def _layout_of(self, token: str) -> dict[str, Any]:
        config = {"token": token, "panes": [self._random.randint(0, 9) for _ in range(self._random.choice([1, 300]))]}
        return {"layout_type": "grid", "config": config}

    def _create_workspace(self) -> Plan:
        token = self._token()
        layout, key = self._layout_of(token), ("workspace", token)
        value = (token, json.dumps(layout, sort_keys=True), None)
        return Plan("workspace.create", {"name": token, "layout": layout}, {**self.world, key: value}, key)

    def _layout(self) -> Plan | None:
        key = self._any("workspace")
        if key is None:
            return None
        name, _, front = self.world[key]
        layout = self._layout_of(key[1])
        world = {**self.world, key: (name, json.dumps(layout, sort_keys=True), front)}
        return Plan("workspace.update_layout", {"id": self._id(key), "layout": layout}, world)

    def _rename_workspace(self) -> Plan | None:
        key = self._any("workspace")
        if key is None:
            return None
        name = self._token()
        return Plan(
            "workspace.rename", {"id": self._id(key), "name": name}, {**self.world, key: (name, *self.world[key][1:])}
        )

    def _move(self) -> Plan | None:
        key, place = self._any("session"), self._any("workspace")
        if key is None:
            return None
        name, status, kind, before = self.world[key]
        after = place and place[1]
        world = {**self.world, key: (name, status, kind, after)}
        if after != before:
            world = _without_front(world, key[1])
        params = {"id": self._id(key), "workspace_id": place and self._id(place)}
        return Plan("session.move", params, world)

    def _front(self) -> Plan | None:
        inside = sorted(key for key, value in self.world.items() if key[0] == "session" and value[3] is not None)
        if not inside:
            return None
        key = self._random.choice(inside)
        place = ("workspace", self.world[key][3])
        name, layout, _ = self.world[place]
        params = {"id": self._id(place), "session_id": self._id(key)}
        return Plan("workspace.set_active_session", params, {**self.world, place: (name, layout, key[1])})

    def _delete_workspace(self) -> Plan | None:
        key = self._any("workspace")
        if key is None:
            return None
        world = {k: v for k, v in self.world.items() if k != key}
        for each, value in world.items():
            if each[0] == "session" and value[3] == key[1]:
                world[each] = (*value[:3], None)
        return Plan("workspace.delete", {"id": self._id(key)}, world)


def _without_front(world: World, token: str) -> World:
    return {
        key: (*value[:2], None) if key[0] == "workspace" and value[2] == token else value
        for key, value in world.items()
    }


def _difference(right: World, found: World) -> str:
    lost = {key: value for key, value in right.items() if found.get(key) != value}
    extra = {key: value for key, value in found.items() if right.get(key) != value}
    return f"answered but not there: {lost}; there but not answered: {extra}"
