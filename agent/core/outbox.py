"""What the parts of the machine have to say and to do in one turn."""

from agent.core.step import NOTHING, Action, Send, Step, Write


class Outbox:
    """Collects a step."""

    def __init__(self) -> None:
        """Begin with nothing, and with nobody who listens."""
        self.is_connected = False
        """Whether a coordinator has answered on the stream that is open."""
        self.writes: list[Write] = []
        self.sends: list[Send] = []
        self.actions: list[Action] = []

    def send(self, send: Send) -> None:
        """Send if the session is up; what is lost is repeated by echoes and by Hello."""
        if self.is_connected:
            self.sends.append(send)

    def take_step(self) -> Step:
        """Return what was collected, and begin anew."""
        if not (self.writes or self.sends or self.actions):
            return NOTHING
        step = Step(writes=tuple(self.writes), sends=tuple(self.sends), actions=tuple(self.actions))
        self.writes, self.sends, self.actions = [], [], []
        return step
