"""Diffusion from scratch: DDPM on scanned digits, in one file, with torch and scikit-learn only.

Run it: it trains for about a minute and writes `from_scratch.png`. Read it from top to bottom:
the noise, the network, the loss, the sampler. Equation and algorithm numbers are those of
Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models".
"""

import math
import struct
import time
import zlib

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import interpolate, mse_loss, silu

STEPS = 500


def digits():
    """1,797 scans of 8×8 pixels, as pictures (N, 1, 8, 8) with values from −1 to 1."""
    pictures = torch.tensor(load_digits().images, dtype=torch.float32)  # 0 to 16
    return (pictures / 8 - 1).unsqueeze(1)


# The noise. A picture is destroyed in STEPS small steps: step t keeps √(1 − β_t) of it and adds
# √β_t of fresh noise. All up to t make one: x_t = √ᾱ_t·x0 + √(1 − ᾱ_t)·ε, ᾱ_t = Π (1 − β_s).


def schedule():
    """β_t and ᾱ_t for t = 0 … STEPS − 1, in float64 so that 1 − ᾱ_t keeps its digits."""
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    return betas, torch.cumprod(1 - betas, dim=0)


def corrupt(x0, t, noise):
    """x_t of each picture at its own step t (B,): equation 4."""
    _, alphas_cumprod = schedule()
    keep = alphas_cumprod[t].view(-1, 1, 1, 1)
    return keep.sqrt().to(x0.dtype) * x0 + (1 - keep).sqrt().to(x0.dtype) * noise


# The network. It sees x_t and t, and says which noise was added: 8×8, down to 4×4, and back.


class Block(nn.Module):
    """Two convolutions around which the signal may pass, told the time in between."""

    def __init__(self, inputs, outputs, time_width):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(8, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(8, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.told = nn.Linear(time_width, outputs)
        self.around = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, told):
        h = self.conv1(silu(self.norm1(x))) + self.told(told)[:, :, None, None]
        return self.around(x) + self.conv2(silu(self.norm2(h)))


class UNet(nn.Module):
    """(B, 1, 8, 8) and t (B,) to (B, 1, 8, 8)."""

    def __init__(self, width=32):
        super().__init__()
        self.width = width
        wide = 4 * width
        self.embed = nn.Sequential(nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.enter = nn.Conv2d(1, width, 3, padding=1)
        self.left = Block(width, width, wide)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle1 = Block(2 * width, 2 * width, wide)
        self.middle2 = Block(2 * width, 2 * width, wide)
        self.right = Block(3 * width, width, wide)
        self.norm, self.leave = nn.GroupNorm(8, width), nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x, t):
        # The time as waves of many lengths, so that near and far steps can both be told apart.
        rates = torch.exp(-math.log(10_000) * torch.arange(self.width // 2) / (self.width // 2))
        angles = t[:, None].to(x.dtype) * rates.to(x.dtype)
        told = silu(self.embed(torch.cat([angles.sin(), angles.cos()], dim=1)))
        fine = self.left(self.enter(x), told)
        coarse = self.middle2(self.middle1(self.down(fine), told), told)
        h = self.right(torch.cat([fine, interpolate(coarse, scale_factor=2)], dim=1), told)
        return self.leave(silu(self.norm(h)))


def loss(net, x0, t, noise):
    """How far the network's guess is from the noise that was added: equation 14."""
    return mse_loss(net(corrupt(x0, t, noise), t), noise)


def train(net, x0, steps=1200, batch=128, seed=0):
    """Algorithm 1: random pictures, random steps, random noise; descend."""
    torch.manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    start = time.time()
    for step in range(steps):
        pictures = x0[torch.randint(len(x0), (batch,))]
        t = torch.randint(STEPS, (batch,))
        value = loss(net, pictures, t, torch.randn_like(pictures))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        slower.step()
        if step % 100 == 99:
            print(f"step {step + 1} of {steps}, loss {value:.4f}, {time.time() - start:.0f} s")


@torch.no_grad()
def sample(net, n, noise):
    """Algorithm 2: n pictures out of noise (STEPS, n, 1, 8, 8), one draw for each step."""
    betas, alphas_cumprod = schedule()
    x = noise[0]
    for k in range(STEPS):
        t = STEPS - 1 - k
        eps = net(x, torch.full((n,), t))
        share = (betas[t] / (1 - alphas_cumprod[t]).sqrt()).item()
        x = (x - share * eps) / (1 - betas[t]).sqrt().item()
        if t > 0:
            x = x + betas[t].sqrt().item() * noise[k + 1]
    return x


def write_png(path, pictures, columns=10, zoom=6):
    """A grid of grey pictures (N, 1, 8, 8) as a PNG file: black is −1, white is 1."""
    grey = ((pictures.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    grey = nn.functional.pad(grey.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3), (2,) * 4)
    n, _, high, wide = grey.shape
    sheet = grey.view(n // columns, columns, high, wide).transpose(1, 2).reshape(-1, columns * wide)

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", sheet.shape[1], sheet.shape[0], 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row.tolist()) for row in sheet)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head))
        file.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


if __name__ == "__main__":
    torch.manual_seed(0)
    model = UNet()
    train(model, digits())
    write_png("from_scratch.png", sample(model, 50, torch.randn(STEPS, 50, 1, 8, 8)))
    print("wrote from_scratch.png")
