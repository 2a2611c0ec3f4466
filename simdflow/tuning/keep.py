"""Keep: measurements of a kernel become lines of the records, as they come.

Turns a Measurement into a Record of the machine that made it. What becomes the choice, its caller
says.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..compiler.records import Record, append, described, here, key_of, machine, now, place_of
from ..compiler.request import Request
from .measure import Measurement

WORTH = 1.01  # a choice is at least this much faster than the default, else it is the default


@dataclass(frozen=True)
class Keeper:
    """What the records of one run say of their kernel."""

    kernel: str
    key: str
    text: Mapping[str, Any]
    session: str

    @staticmethod
    def of(request: Request) -> Keeper:
        """The keeper of a run that measures dataflows of a request."""
        session = uuid.uuid4().hex[:16]
        return Keeper(request.nest.name, key_of(request), described(request), session)

    def keep(self, m: Measurement, choice: bool) -> bool:
        """Append a measurement; True if it is there."""
        about: Mapping[str, Any] = m.about or machine()
        return append(
            Record(
                key=self.key,
                place=here() if m.about is None else place_of(m.about),
                choice=choice,
                date=now(),
                kernel=self.kernel,
                flow=m.flow,
                us=m.us,
                spread=m.spread,
                calls=m.calls,
                reference=m.reference,
                why=m.why,
                session=self.session,
                about={**self.text, **about},
            )
        )
