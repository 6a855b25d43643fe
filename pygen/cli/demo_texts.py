"""What the demo's page says."""

from __future__ import annotations

from pygen.cli.judges import Judge

LIKELIHOOD = (
    "Likelihood and accuracy are those of the held-out images, which no model has seen. A pixel of grey "
    "level g out of L becomes the number x = (g + u) / L, with the same uniform noise u in [0, 1) "
    "for all models (uniform dequantisation; Theis, van den Oord and Bethge, 2016). Nats per image "
    "are log p(x) of an image of such numbers: higher is better, and a model that knows nothing "
    "has 0. Bits per dimension are the same in other units, log2 L - nats / (dimensions x ln 2): "
    "lower is better, and a model that knows nothing has log2 L. Naive Bayes gives each grey level "
    "a probability, which counts as spread evenly over the level's share of [0, 1], so that all "
    "models are judged as densities of the same numbers. Accuracy is how often Bayes' rule finds "
    "the right class.",
    "Of a VAE log p(x) cannot be computed; its figure is the evidence lower bound, and log p(x) is "
    "that or more. It is low where some pixels hardly vary, such as empty corners: one width of "
    "noise serves all pixels of a VAE, while the Gaussians have a width for each.",
    "Likelihood and looks are different things. Naive Bayes may put a spike on exactly black and "
    "another on exactly white, which a normal curve cannot, and this can outweigh everything it "
    "misses about how pixels belong together; the accuracy and the pictures show what it misses.",
)

RECONSTRUCTION = (
    "The error of a pixel of a held-out image, from 0 for black to 1 for white, squared and "
    "averaged; lower is better. Principal components are the best code of as many numbers among "
    "those that are linear.",
)

REAL = (
    "For comparison, the first training images of each class, as they are: neighbouring pixels "
    "go together, and the images of one class differ in more than noise."
)

MODELS = {
    "naive_bayes": (
        "For each class and each pixel on its own, naive Bayes counts how often each grey level "
        "occurs, and draws every pixel by these counts without looking at its neighbours. On "
        "average over many draws the class appears; a single draw is speckle, because nothing in "
        "the model says that neighbouring pixels belong together."
    ),
    "gaussian_bayes": (
        "For each class and each pixel on its own, Gaussian Bayes keeps a mean and a variance. "
        "What one sees is the mean image of the class under noise that is strong where the images "
        "of the class differ: greys where a real pixel would be either black or white, and the "
        "same blurred shape in every draw, since the model knows only one way of writing a class."
    ),
    "mixture": (
        "Each class is a mixture of at most 10 normal distributions, found by expectation "
        "maximisation: its ways of being written. A draw first chooses one of them and then the "
        "pixels around its mean, and this choice ties the pixels together: strokes hold, and the "
        "draws of a row differ as real ones do. The speckle that remains is the noise within a "
        "component, where pixels are again independent."
    ),
    "codes": (
        "Both turn an image into a few numbers, its code, and the code into an image again, by the "
        "same networks. The autoencoder is only asked for good reconstructions, so its codes lie "
        "anywhere, and a random code falls between them, where its decoder has learned nothing. "
        "The VAE is also asked to spread its codes as a normal distribution without gaps, so a "
        "random code from that distribution is one that its decoder knows."
    ),
    "gan": (
        "A generator makes images of noise, and a discriminator tries to tell them from real ones; "
        "each learns from the other. Nobody compares an image with another pixel by pixel, so "
        "nothing rewards a blur, and strokes come out as sharp as real ones. These two are of "
        "dense layers, which do not know that pixels have neighbours."
    ),
    "dcgan": (
        "The same game between two networks of strided convolutions, which build an image from "
        "coarse to fine and look at each place with the same eyes. What is drawn here is the "
        "moving average of the generator over its training steps."
    ),
}

NUMBERS = "numbered as in the survey of generative models (2019) that they redo"
FIGURES = {
    "gaussian_bayes": "Figure 1. Ten draws for each class",
    "mixture": "Figure 2. Ten draws for each class",
    "autoencoder_reconstructions": (
        "Figure 3. Autoencoder: held-out images, each row above its reconstructions"
    ),
    "autoencoder": "Figure 4. Autoencoder: random codes, decoded",
    "vae_reconstructions": "Figure 5. VAE: held-out images, each row above its reconstructions",
    "vae": "Figure 6. VAE: random codes, decoded",
    "dcgan": "Figure 8. Images made of noise",
}
DCGAN_ON_PHOTOGRAPHS = "Figures 10 and 11. Images made of noise"

SETTINGS = (
    "Naive Bayes' smoothing (alpha) and the floor under the mixtures' variances (reg_covar) were "
    "chosen beforehand, each from a few values, by likelihood on a fifth of the training images of "
    "digits and of 12,000 training images of MNIST; no test split had a part in that. At most 10 "
    "components and diagonal covariances are the paper's and the cheap choice. Learning rates, "
    "steps and the 16 numbers of a code were chosen by hand, on digits."
)


def what(data: str) -> str:
    """Return what the images of a data set are, for the page's first sentence."""
    known = {
        "digits": "handwritten digits",
        "mnist": "handwritten digits",
        "fashion_mnist": "pictures of clothing",
        "cifar10": "photographs",
    }
    return known.get(data, "images")


def caption(picture: str, data: str) -> str:
    """Return what is below a picture, by its file's name; nothing where the title says it all."""
    if picture == "dcgan" and data == "cifar10":
        return DCGAN_ON_PHOTOGRAPHS
    return FIGURES.get(picture, "")


def samples(n: int, judge: Judge) -> str:
    """Return how the samples were judged."""
    return (
        f"{n:,} samples of each model beside {n:,} held-out images, seen through the last layer of "
        f"{judge.name}, which gets {judge.accuracy:.1%} of the held-out ones right. The Fréchet distance is that "
        "of normal distributions fitted to both, lower is better; precision is the share of "
        "samples that lie among real images, coverage the share of real images with a sample "
        "nearby (Naeem et al., 2020, 5 neighbours), higher is better. The first row, other real "
        "images, is what can be reached; the last takes each pixel from another image. Classes "
        "are drawn as often as they occur."
    )
