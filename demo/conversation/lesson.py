"""What the speaker of a class has set: scenario, system prompt, cap, seed, and whether students guess."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from demo.conversation.scenarios import Scenario
from demo.conversation.settings import PAGE_SAMPLING, CapChoice, TurnSettings
from demo.conversation.turns import well_formed
from demo.utils.errors import UserError

if TYPE_CHECKING:
    from demo.axis.axis import AssistantAxis

MOST_PROMPT = 4000  # characters of a system prompt
MOST_SEED = 10**6
SEEDS_APART = 1000  # between two students; more than a conversation has turns


@dataclass(frozen=True, slots=True)
class Lesson:
    """How every student's next message is answered.

    Attributes:
        scenario: id of the scenario; empty for none.
        title, blurb, content_warning, script: of the scenario; the script is its user messages in order.
        cap: whether the capped reply has the axis's own cap.
        seed: the seed of the first turn; every later turn has the next one.
        own_seeds: whether each student has other seeds, so that a class is many samples and not one.
        guess: whether students guess which reply was capped before they see the colours.
    """

    scenario: str = ""
    title: str = ""
    blurb: str = ""
    content_warning: str = ""
    script: tuple[str, ...] = ()
    system_prompt: str = ""
    cap: bool = True
    seed: int = 0
    own_seeds: bool = True
    guess: bool = True

    @classmethod
    def of(cls, asked: dict[str, Any], scenarios: Sequence[Scenario]) -> Lesson:
        """The lesson that a speaker's page asks for: scenario, system_prompt, cap, seed, own_seeds, guess.

        Raises:
            UserError: a field is not valid. It may be anything.
        """
        prompt, seed = asked.get("system_prompt", ""), asked.get("seed", 0)
        if not isinstance(prompt, str) or len(prompt) > MOST_PROMPT:
            raise UserError(f"A system prompt is text of at most {MOST_PROMPT:,} characters; shorten it.")
        if type(seed) is not int or not 0 <= seed <= MOST_SEED:
            raise UserError(f"The seed is a whole number from 0 to {MOST_SEED:,}.")
        switches = {name: asked.get(name, True) for name in ("cap", "own_seeds", "guess")}
        if not all(isinstance(one, bool) for one in switches.values()):
            raise UserError("The cap, the seeds and the guess are either on or off; reload the page.")
        lesson = cls(system_prompt=well_formed(prompt), seed=seed, **switches)
        wanted = asked.get("scenario", "")
        if not wanted:
            return lesson
        found = next((one for one in scenarios if one.id == wanted), None)
        if found is None:
            raise UserError("There is no such scenario; choose one from the list.")
        return replace(
            lesson,
            scenario=found.id,
            title=found.title,
            blurb=found.blurb,
            content_warning=found.content_warning,
            script=found.turns,
        )

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)

    def for_students(self) -> Lesson:
        """What students may know of it: not what the scenario shows, as long as they guess that."""
        return replace(self, blurb="") if self.guess else self

    def settings(
        self,
        axis: AssistantAxis,
        student: int,
        turn: int,
        conditional: bool,
        dtype: str,
        template: str,
        thinking: bool,
    ) -> TurnSettings:
        """The settings of a student's turn.

        Args:
            student: its number, from 1; the first has the seed of the lesson.
            turn: its number, from 0.
            conditional: whether the engine can cap only the replies that begin below a threshold.
            dtype, template, thinking: as in `TurnSettings`.
        """
        choice = replace(CapChoice.of_axis(axis), on=self.cap)
        if not conditional:
            choice = replace(choice, only_below=None)
        own = SEEDS_APART * (student - 1) if self.own_seeds else 0
        return TurnSettings(
            replace(PAGE_SAMPLING, seed=self.seed + own + turn),
            choice.cap(axis),
            self.system_prompt,
            marks=choice.marks(axis),
            dtype=dtype,
            template=template,
            thinking=thinking,
        )
