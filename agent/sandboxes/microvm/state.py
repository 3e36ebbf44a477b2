"""What a sandbox's folder says about it: what was asked for, and what it is made with."""

from __future__ import annotations

from pathlib import Path

from agent.core.data import Data
from agent.core.sandbox import SandboxSpec
from agent.sandboxes.microvm import images, qemu
from agent.sandboxes.microvm.build import Image
from agent.sandboxes.microvm.template import Kind


class State(Data):
    """The content of `state.json`, without which a folder is no sandbox."""

    spec: SandboxSpec
    image: Image
    accelerator: str
    tier: str

    @property
    def kind(self) -> Kind:
        """The template of a new machine."""
        tier = next(tier for tier in qemu.TIERS if tier.name == self.tier)
        return Kind(image=self.image, tier=tier, accelerator=self.accelerator, disk=self.spec.limits.disk)

    def write(self, place: Path) -> None:
        """Makes the folder a sandbox, all at once."""
        new = place / "state.json.new"
        new.write_text(self.model_dump_json())
        new.rename(place / "state.json")


def make(place: Path, state: State) -> None:
    """Fills the folder of a new sandbox, but for its disk."""
    images.make_seed(place / "seed.img", state.spec)
    state.write(place)
