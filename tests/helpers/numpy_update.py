"""One student's update in NumPy: a small network with BatchNorm, all three losses, AdamW. No JAX, float64.

Gradients are central differences of the loss, so no derivative is written twice.
"""

import numpy as np

EPS = 1e-5  # of BatchNorm


def forward(params, images):
    """Logits, and the moments of the batch: mean color, linear layer, BatchNorm in train mode, tanh, linear head."""
    x = images.mean((1, 2)) @ params["body"]["kernel"]
    mean, var = x.mean(0), x.var(0)
    x = np.tanh((x - mean) / np.sqrt(var + EPS) * params["norm"]["scale"] + params["norm"]["bias"])
    return x @ params["head"]["kernel"] + params["head"]["bias"], mean, var


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def terms(logits, teacher, labels, temperature):
    """The three terms, each averaged over those examples that count."""
    rows = np.flatnonzero(labels >= 0)
    log_p, log_q = log_softmax(teacher / temperature), log_softmax(logits / temperature)
    norms = np.linalg.norm(teacher, axis=1) * np.linalg.norm(logits, axis=1)
    return {
        "ce": -log_softmax(logits)[rows, labels[rows]].mean(),
        "kl": temperature**2 * (np.exp(log_p) * (log_p - log_q)).sum(1).mean(),
        "cosine": (1 - (teacher * logits).sum(1) / norms).mean(),
    }


def flat(tree):
    return {(layer, name): leaf for layer, leaves in tree.items() for name, leaf in leaves.items()}


def nested(leaves):
    tree = {}
    for (layer, name), leaf in leaves.items():
        tree.setdefault(layer, {})[name] = leaf
    return tree


class Student:
    """One network in training, from `params` and running `stats` as trees of layers."""

    def __init__(self, params, stats, *, clip, head_factor, ema):
        self.params = {name: np.array(leaf, np.float64) for name, leaf in flat(params).items()}
        self.stats = {name: np.array(leaf, np.float64) for name, leaf in flat(stats).items()}
        self.mean = {**self.params}, {**self.stats}  # the moving averages of both
        self.first = {name: np.zeros_like(leaf) for name, leaf in self.params.items()}
        self.second = {name: np.zeros_like(leaf) for name, leaf in self.params.items()}
        self.clip, self.head_factor, self.ema = clip, head_factor, ema

    def loss(self, batch, arm):
        images, teacher, labels = batch
        found = terms(forward(nested(self.params), images)[0], teacher, labels, arm["temperature"])
        return sum(arm[term] * value for term, value in found.items()), found

    def gradient(self, batch, arm, h=1e-6):
        found = {}
        for name, leaf in self.params.items():
            gradient = np.zeros_like(leaf)
            for index in np.ndindex(leaf.shape):
                kept, sides = leaf[index], []
                for place in (kept + h, kept - h):
                    leaf[index] = place
                    sides.append(self.loss(batch, arm)[0])
                leaf[index] = kept
                gradient[index] = (sides[0] - sides[1]) / (2 * h)
            found[name] = gradient
        return found

    def update(self, step, batch, arm, factor):
        """One step with the learning rate arm["learning_rate"] * factor. Returns loss, gradient norm and terms."""
        loss, found = self.loss(batch, arm)
        gradient = self.gradient(batch, arm)
        norm = np.sqrt(sum((one**2).sum() for one in gradient.values()))
        _, mean, var = forward(nested(self.params), batch[0])
        count = len(batch[0])
        for name, leaf in self.params.items():
            clipped = gradient[name] * min(1.0, self.clip / norm)
            self.first[name] = 0.9 * self.first[name] + 0.1 * clipped
            self.second[name] = 0.999 * self.second[name] + 0.001 * clipped**2
            first = self.first[name] / (1 - 0.9 ** (step + 1))
            second = self.second[name] / (1 - 0.999 ** (step + 1))
            change = first / (np.sqrt(second) + 1e-8)
            if name[1] == "kernel":
                change = change + arm["weight_decay"] * leaf
            if name[0] == "head":
                change = change * self.head_factor
            self.params[name] = leaf - arm["learning_rate"] * factor * change
        for name, value in (("mean", mean), ("var", var * count / (count - 1))):
            self.stats["norm", name] = 0.9 * self.stats["norm", name] + 0.1 * value
        decay = min(self.ema, (1 + step) / (10 + step))
        self.mean = tuple(
            {name: decay * old[name] + (1 - decay) * leaf for name, leaf in new.items()}
            for old, new in zip(self.mean, (self.params, self.stats), strict=True)
        )
        return loss, norm, found
