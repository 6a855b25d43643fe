"""DCGANs for 32x32 pictures in the three forms in which people publish them, written anew."""

from torch import nn, tanh
from torch.nn import functional as F

LATENT, CHANNELS, WIDTH = 6, 3, 4


def weights_init(module):
    """As tutorials have it: by what a class is called."""
    name = module.__class__.__name__
    if name.find("Conv") != -1:
        nn.init.normal_(module.weight.data, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(module.weight.data, 1.0, 0.02)
        nn.init.constant_(module.bias.data, 0)


class SequentialGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(LATENT, WIDTH * 4, 4, 1, 0, bias=False),
            nn.BatchNorm2d(WIDTH * 4),
            nn.ReLU(True),
            nn.ConvTranspose2d(WIDTH * 4, WIDTH * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH * 2),
            nn.ReLU(True),
            nn.ConvTranspose2d(WIDTH * 2, WIDTH, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(True),
            nn.ConvTranspose2d(WIDTH, CHANNELS, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, z):
        return self.main(z)


class SequentialDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(CHANNELS, WIDTH, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH, WIDTH * 2, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH * 2),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH * 2, WIDTH * 4, 4, 2, 1, bias=False),
            nn.BatchNorm2d(WIDTH * 4),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(WIDTH * 4, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x):
        return self.main(x).flatten()


class Up(nn.Module):
    def __init__(self, before, after, activation):
        super().__init__()
        self.conv = nn.ConvTranspose2d(before, after, 4, 2, 1)
        self.norm = nn.BatchNorm2d(after, momentum=None)
        self.activation = activation

    def forward(self, x):
        return self.activation(self.norm(self.conv(x)))


class Down(nn.Module):
    def __init__(self, before, after, norm=True):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, 2, 1, bias=not norm)
        self.norm = nn.BatchNorm2d(after) if norm else nn.Identity()
        self.act = nn.LeakyReLU(0.2)

    def forward(self, x):
        return self.act(self.norm(self.conv(x)))


class BlockGenerator(nn.Module):
    """Blocks that share an activation, after a linear layer."""

    def __init__(self):
        super().__init__()
        activation = nn.ReLU()
        self.project = nn.Linear(LATENT, WIDTH * 4 * 16)
        self.blocks = nn.ModuleList(
            [Up(WIDTH * 4, WIDTH * 2, activation), Up(WIDTH * 2, WIDTH, activation)]
        )
        self.output = nn.ConvTranspose2d(WIDTH, CHANNELS, 4, 2, 1)

    def forward(self, z):
        x = self.project(z.flatten(1)).view(-1, WIDTH * 4, 4, 4)
        for block in self.blocks:
            x = block(x)
        return tanh(self.output(x))


class BlockDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Down(CHANNELS, WIDTH, norm=False)
        self.middle = nn.Sequential(Down(WIDTH, WIDTH * 2), Down(WIDTH * 2, WIDTH * 4))
        self.last = nn.Linear(WIDTH * 4 * 16, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x)).flatten(1)).sigmoid().flatten()


class FunctionalGenerator(nn.Module):
    def __init__(self):
        super().__init__()
        self.deconv1 = nn.ConvTranspose2d(LATENT, WIDTH * 4, 4, 1, 0)
        self.bn1 = nn.BatchNorm2d(WIDTH * 4)
        self.deconv2 = nn.ConvTranspose2d(WIDTH * 4, WIDTH * 2, 4, 2, 1)
        self.bn2 = nn.BatchNorm2d(WIDTH * 2)
        self.deconv3 = nn.ConvTranspose2d(WIDTH * 2, WIDTH, 4, 2, 1)
        self.bn3 = nn.BatchNorm2d(WIDTH)
        self.deconv4 = nn.ConvTranspose2d(WIDTH, CHANNELS, 4, 2, 1)

    def forward(self, z):
        x = F.relu(self.bn1(self.deconv1(z)))
        x = F.relu(self.bn2(self.deconv2(x)))
        x = F.relu(self.bn3(self.deconv3(x)))
        return F.tanh(self.deconv4(x))


class FunctionalDiscriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, WIDTH, 4, 2, 1)
        self.conv2 = nn.Conv2d(WIDTH, WIDTH * 2, 4, 2, 1)
        self.bn2 = nn.BatchNorm2d(WIDTH * 2)
        self.conv3 = nn.Conv2d(WIDTH * 2, WIDTH * 4, 4, 2, 1)
        self.bn3 = nn.BatchNorm2d(WIDTH * 4)
        self.conv4 = nn.Conv2d(WIDTH * 4, 1, 4, 1, 0)

    def forward(self, x):
        x = F.leaky_relu(self.conv1(x), 0.2)
        x = F.leaky_relu(self.bn2(self.conv2(x)), 0.2)
        x = F.leaky_relu(self.bn3(self.conv3(x)), 0.2)
        return F.sigmoid(self.conv4(x)).flatten()


FORMS = {
    "sequential": (SequentialGenerator, SequentialDiscriminator),
    "blocks": (BlockGenerator, BlockDiscriminator),
    "functional": (FunctionalGenerator, FunctionalDiscriminator),
}
