"""A network of two convolutions, for runs that are small enough to keep."""

from torch import Tensor, nn


class SmallNetwork(nn.Module):
    """Features ``(B, 8)`` of images ``(B, in_chans, H, W)``."""

    def __init__(self, in_chans: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_chans, 8, 5, stride=3)
        self.second = nn.Conv2d(8, 8, 3, stride=2, bias=False)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        """Features averaged over the last map."""
        return self.norm(self.second(self.first(x).relu())).relu().mean(dim=(2, 3))


class SmallPolicy(SmallNetwork):
    """The same features of four stacked frames, bytes ``(B, 4, H, W)``."""

    def __init__(self) -> None:
        super().__init__(in_chans=4)

    def forward(self, x: Tensor) -> Tensor:
        """Features averaged over the last map."""
        return super().forward(x.float() / 255)
