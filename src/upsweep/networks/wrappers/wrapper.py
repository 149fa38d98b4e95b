"""What the wrappers share: they look like the generator inside."""

from upsweep.networks.upscalers.upscaler import Upscaler


class Wrapper(Upscaler):
    """A generator around a generator, which it holds: of its scale, channels, stride and mode (training or not)."""

    def __init__(self, generator: Upscaler) -> None:
        self.scales, self.stride = generator.scales, generator.stride
        super().__init__(generator.scale, channels=1)
        self.channels = generator.channels  # may be those of a wrapper inside: more than a generator has
        self.generator = generator
        self.training = generator.training

    @property
    def called(self) -> str:
        return self.generator.called

    @property
    def distinct(self) -> tuple[int, ...]:
        return self.generator.distinct
