"""What the demo's page says."""

from __future__ import annotations

NOTES = (
    "Likelihood and accuracy are those of the held-out images, which no model has seen. A pixel of grey "
    "level g out of L becomes the number x = (g + u) / L, with the same uniform noise u in [0, 1) "
    "for all models (uniform dequantisation; Theis, van den Oord and Bethge, 2016). Nats per image "
    "are log p(x) of an image of such numbers: higher is better, and a model that knows nothing "
    "has 0. Bits per dimension are the same in other units, log2 L - nats / (dimensions x ln 2): "
    "lower is better, and a model that knows nothing has log2 L. Naive Bayes gives each grey level "
    "a probability, which counts as spread evenly over the level's share of [0, 1], so that all "
    "models are judged as densities of the same numbers. Accuracy is how often Bayes' rule finds "
    "the right class.",
    "Likelihood and looks are different things. Naive Bayes may put a spike on exactly black and "
    "another on exactly white, which a normal curve cannot, and this can outweigh everything it "
    "misses about how pixels belong together; the accuracy and the pictures show what it misses.",
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
}

SETTINGS = (
    "Naive Bayes' smoothing (alpha) and the floor under the mixtures' variances (reg_covar) were "
    "chosen beforehand, each from a few values, by likelihood on a fifth of the training images of "
    "digits and of 12,000 training images of MNIST. At most 10 components and diagonal covariances "
    "are the paper's and the cheap choice. No test split had a part in any of this."
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
