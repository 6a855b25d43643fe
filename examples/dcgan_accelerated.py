"""Train a DCGAN on pictures of 64x64 pixels, as is usual in PyTorch.

dcgan.py and dcgan_accelerated.py are one program: the second calls pygen.accelerate, and that is all.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import pygen
from pygen.data import load
from pygen.pictures import grid, save_png

SIZE = 64


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", default="cifar10", help="a folder of pictures, or a name")
    parser.add_argument("--out", type=Path, default=Path("runs/dcgan64"), help="folder of results")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--latent-dim", type=int, default=100)
    parser.add_argument("--width", type=int, default=64, help="channels beside the picture")
    parser.add_argument("--every", type=int, default=100, help="steps between saved results")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args(argv)


def weights_init(module):
    name = type(module).__name__
    if "Conv" in name:
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif "BatchNorm" in name:
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def generator(latent_dim, width, channels):
    # Sides of 1, 4, 8, 16, 32 and 64.
    return nn.Sequential(
        nn.ConvTranspose2d(latent_dim, width * 8, 4, 1, 0, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 8, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 4, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.ReLU(True),
        nn.ConvTranspose2d(width * 2, width, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(True),
        nn.ConvTranspose2d(width, channels, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def discriminator(width, channels):
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width, width * 2, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 2),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 2, width * 4, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 4, width * 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(width * 8),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
        nn.Flatten(0),
    )


def endless(loader):
    while True:
        for (pictures,) in loader:
            yield pictures


def save(parts, step, path):
    state = {name: part.state_dict() for name, part in parts.items()}
    beside = path.with_name(path.name + ".partial")
    torch.save({"step": step, **state}, beside)
    beside.replace(path)


def main(argv=None):
    args = parse(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)

    pictures, _ = load(args.data, image_size=SIZE)
    if len(pictures) < args.batch_size:
        raise SystemExit(f"{len(pictures)} pictures are no batch: set --batch-size to fewer")
    dataset = TensorDataset(pictures)
    batches = endless(DataLoader(dataset, args.batch_size, shuffle=True, drop_last=True))

    netG = generator(args.latent_dim, args.width, pictures.shape[1]).to(args.device)
    netD = discriminator(args.width, pictures.shape[1]).to(args.device)
    netG.apply(weights_init)
    netD.apply(weights_init)
    pygen.accelerate(nn.ModuleDict({"netG": netG, "netD": netD}))

    criterion = nn.BCELoss()
    optimizerG = torch.optim.Adam(netG.parameters(), lr=2e-4, betas=(0.5, 0.999))
    optimizerD = torch.optim.Adam(netD.parameters(), lr=2e-4, betas=(0.5, 0.999))
    real_label = torch.ones(args.batch_size, device=args.device)
    fake_label = torch.zeros(args.batch_size, device=args.device)
    fixed_noise = torch.randn(64, args.latent_dim, 1, 1, device=args.device)

    parts = {"netG": netG, "netD": netD, "optimizerG": optimizerG, "optimizerD": optimizerD}
    start = 0
    if args.resume:
        checkpoint = torch.load(args.resume, map_location=args.device)
        start = checkpoint["step"]
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        torch.manual_seed(args.seed + start)

    losses = []
    for step in range(start + 1, start + args.steps + 1):
        real = next(batches).to(args.device) / 127.5 - 1

        netD.zero_grad()
        lossD_real = criterion(netD(real), real_label)
        lossD_real.backward()
        noise = torch.randn(args.batch_size, args.latent_dim, 1, 1, device=args.device)
        fake = netG(noise)
        lossD_fake = criterion(netD(fake.detach()), fake_label)
        lossD_fake.backward()
        optimizerD.step()

        netG.zero_grad()
        lossG = criterion(netD(fake), real_label)
        lossG.backward()
        optimizerG.step()

        losses.append(torch.stack([lossD_real + lossD_fake, lossG]).detach())
        if step % args.every == 0 or step == start + args.steps:
            print(f"step {step}: loss D {losses[-1][0]:.4f}, G {losses[-1][1]:.4f}", flush=True)
            with torch.no_grad():
                made = netG(fixed_noise) / 2 + 0.5
            save_png(grid(made.cpu(), 8), args.out / f"step-{step:06}.png")
            save(parts, step, args.out / "checkpoint.pt")
    return torch.stack(losses).cpu()


if __name__ == "__main__":
    main()
