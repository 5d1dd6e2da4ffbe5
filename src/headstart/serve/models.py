"""The models of a server by name, each replaced where another one takes its folder's place."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from headstart.data.limits import Limits
from headstart.errors import HeadstartError, OptionError, nearest
from headstart.files import swap
from headstart.serve.refusals import Refusal
from headstart.serve.served import Identity, Served, load

LOOK = 1.0  # s between two looks at a folder: one stat
LONGEST_PAUSE = 64.0  # s between two tries to load a model that is broken


def names_of(folders: Sequence[str | Path]) -> dict[str, Path]:
    """name -> folder, the last part of each path. Raises OptionError where two are the same."""
    places = [Path(folder).resolve() for folder in folders]
    found = {place.name: place for place in places}
    if len(found) < len(places):
        twice = Counter(place.name for place in places).most_common(1)[0][0]
        raise OptionError(
            f"two models are named {twice}, and a request names a model by its folder's name: rename one folder, or "
            "make a link of another name to it"
        )
    return found


@dataclass(eq=False)
class Place:
    """One name: the model at work there, how many requests it is at, and why a newer one is not at work."""

    now: Served
    refused: str = ""
    _tried: Identity = None
    _pause: float = LOOK
    _next: float = 0.0
    users: dict[Served, int] = field(default_factory=dict)


class Models:
    """Of one event loop; the first is the one that answers where no name is given."""

    def __init__(self, loaded: Sequence[Served], limits: Limits, switched: Callable[[str, bool, str], None]) -> None:
        """`switched(name, well, line)`: is told of every model that took another's place, or could not."""
        self._places = {one.name: Place(one) for one in loaded}
        self._limits, self._switched = limits, switched

    @property
    def at_work(self) -> list[Served]:
        return [place.now for place in self._places.values()]

    def described(self) -> list[dict[str, object]]:
        """For GET /models."""
        return [place.now.described() | {"refused": place.refused or None} for place in self._places.values()]

    @contextmanager
    def using(self, name: str | None) -> Iterator[Served]:
        """The model of this name, which stays at work until all who use it are done. Raises Refusal."""
        if name is None:
            name = next(iter(self._places))
        if name not in self._places:
            known = ", ".join(self._places)
            raise Refusal(
                404, f"there is no model {name[:100]!r}{nearest(name[:100], self._places)}: there are {known}"
            )
        place = self._places[name]
        one = place.now
        place.users[one] = place.users.get(one, 0) + 1
        try:
            yield one
        finally:
            place.users[one] -= 1
            if not place.users[one]:
                del place.users[one]
                if place.now is not one:
                    asyncio.get_running_loop().run_in_executor(None, one.close)

    async def watch(self) -> None:
        """Look at the folders for ever."""
        while True:
            await asyncio.sleep(LOOK)
            for place in self._places.values():
                await self._look(place)

    async def _look(self, place: Place) -> None:
        folder = place.now.folder
        found, now = swap.identity(folder), asyncio.get_running_loop().time()
        if found is None or found == place.now.identity:
            return
        if found == place._tried and now < place._next:
            return
        if found != place._tried:
            place._pause = LOOK
        place._tried, place._next, place._pause = found, now + place._pause, min(2 * place._pause, LONGEST_PAUSE)
        name = place.now.name
        try:
            new = await asyncio.to_thread(load, folder, name, self._limits)
        except (HeadstartError, OSError, RuntimeError, MemoryError) as error:
            line = f"the new model in {folder.name} is not taken, the one before answers on: {error}"
            if line != place.refused:
                place.refused = line
                self._switched(name, False, line)
            return
        old, place.now, place.refused = place.now, new, ""
        if old not in place.users:
            await asyncio.to_thread(old.close)
        self._switched(name, True, f"{name}: version {new.version} took the place of {old.version}")
