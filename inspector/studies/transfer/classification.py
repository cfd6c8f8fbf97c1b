"""A linear classifier on features, judged on photos that it was not trained on."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import first_few
from inspector.errors import UsageError, require

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "CLASSIFIERS",
    "COSTS",
    "Fitted",
    "Plan",
    "class_counts",
    "fit",
    "plan",
    "require_scikit_learn",
]

Array = np.ndarray[Any, Any]

CLASSIFIERS = {
    "logistic": "softmax regression, L2 (scikit-learn LogisticRegression, lbfgs)",
    "svm": "linear SVM, one against the rest, squared hinge, L2 (scikit-learn LinearSVC)",
}

COSTS = (0.001, 0.01, 0.1, 1.0)
"""What C is chosen among, by cross-validation inside of each training part."""

INNER_FOLDS = 3

_ITERATIONS = 5000


@dataclass(frozen=True, eq=False)
class Plan:
    """What is trained on what: the same for all layers and models.

    Attributes:
        parts: (train, test) places of each fold.
        inner: Folds inside of each training part that choose C; 0 when it is given.
        costs: What C is chosen among, or the one given.
        classifier: A key of ``CLASSIFIERS``.
        seed: Of folds and draws.
    """

    parts: tuple[tuple[Array, Array], ...]
    inner: int
    costs: tuple[float, ...]
    classifier: str
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "classifier": CLASSIFIERS[self.classifier],
            "standardised": "each dimension to mean 0 and deviation 1 over the training part",
            "folds": len(self.parts),
            "fold_choice": "stratified, shuffled",
            "trained_on": [len(train) for train, _ in self.parts],
            "costs": self.costs,
            "cost_choice": (
                f"best mean accuracy over {self.inner} stratified folds inside each training part; "
                "the smallest of equal ones"
                if self.inner
                else "given"
            ),
            "most_iterations": _ITERATIONS,
            "seed": self.seed,
        }


@dataclass(frozen=True, eq=False)
class Fitted:
    """What classifiers on one layer's features said.

    Attributes:
        predicted: (N,) class of each photo, by the classifier that was not trained on it.
        costs: C of each fold.
        unconverged: Fits that ran out of iterations.
        fits: How many there were.
        said: Other warnings of scikit-learn.
    """

    predicted: Array
    costs: tuple[float, ...]
    unconverged: int
    fits: int
    said: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """For a journal."""
        return {
            "predicted": self.predicted.tolist(),
            "costs": self.costs,
            "fits": self.fits,
            "unconverged": self.unconverged,
            "said": self.said,
        }

    @classmethod
    def of_plain(cls, kept: Mapping[str, Any]) -> "Fitted":
        """Back from a journal."""
        return cls(
            np.asarray(kept["predicted"], int),
            tuple(kept["costs"]),
            kept["unconverged"],
            kept["fits"],
            tuple(kept["said"]),
        )


def class_counts(labels: Sequence[str], folds: int) -> Counter[str]:
    """Photos of each class.

    Raises:
        UsageError: fewer than two classes, or classes with too few photos for the folds.
    """
    counts = Counter(labels)
    if len(counts) < 2:
        raise UsageError(
            f"{len(counts)} class(es) of photos", hint="a classifier needs two classes or more"
        )
    few = sorted(name for name, count in counts.items() if count < folds)
    if few:
        shown = first_few([f"{name!r} has {counts[name]}" for name in few], 8)
        least = min(counts.values())
        lower = f"--folds {least}, or " if least > 1 else ""
        raise UsageError(
            f"{folds} folds need {folds} photos of each class: {shown}",
            hint=f"{lower}more photos of these classes, or leave them out",
        )
    return counts


def require_scikit_learn() -> None:
    """Refuse to go on where scikit-learn is not installed.

    Raises:
        MissingExtra: It is not.
    """
    require("sklearn.model_selection", "linear classifiers", "studies")


def plan(y: Array, *, classifier: str, folds: int, cost: float, per_class: int, seed: int) -> Plan:
    """Divide photos into folds.

    Args:
        y: (N,) classes; each has as many photos as there are folds, or more.
        classifier: A key of ``CLASSIFIERS``.
        folds: How many.
        cost: C; 0 for a choice among ``COSTS``.
        per_class: Training photos of each class, drawn at random; 0 for all.
        seed: Of folds and draws.

    Raises:
        UsageError: too few training photos for this.
        MissingExtra: scikit-learn is not installed.
    """
    require_scikit_learn()
    from sklearn.model_selection import StratifiedKFold

    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    random = np.random.default_rng(seed)
    parts = []
    for train, test in splitter.split(np.zeros((len(y), 1)), y):
        kept = _drawn(train, y, per_class, random) if per_class else train
        parts.append((kept, test))
    least = min(np.bincount(y[train]).min() for train, _ in parts)
    inner = 0 if cost else min(INNER_FOLDS, int(least))
    if not cost and inner < 2:
        raise UsageError(
            "a class has one training photo in a fold, too few to choose C on",
            hint="give --cost 0.01, more photos, or more of them --per-class",
        )
    return Plan(tuple(parts), inner, (cost,) if cost else COSTS, classifier, seed)


def _drawn(train: Array, y: Array, count: int, random: np.random.Generator) -> Array:
    """So many training places of each class."""
    kept = []
    for index in np.unique(y):
        own = train[y[train] == index]
        if len(own) < count:
            raise UsageError(
                f"{count} training photos a class, and a class has {len(own)} in a fold",
                where="per_class",
                hint=f"at most {len(own)}",
            )
        kept.append(random.choice(own, count, replace=False))
    return np.sort(np.concatenate(kept))


def fit(
    X: Array, y: Array, plan: Plan, progress: "Callable[[int, int], None] | None" = None
) -> Fitted:
    """Train a classifier on each fold's training part and ask it about the rest.

    Args:
        X: (N, D) features.
        y: (N,) classes.
        plan: What to train on what.
        progress: Called with (done, total) folds.
    """
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import (  # type: ignore[import-untyped]
        threadpool_limits,
    )

    values = X.astype(np.float64)
    predicted, costs = np.full(len(y), -1), []
    # Problems are small: threads wait for one another, measured twenty times as long.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for fold, (train, test) in enumerate(plan.parts, 1):
            model, cost = _trained(values[train], y[train], plan)
            predicted[test] = model.predict(values[test])
            costs.append(cost)
            if progress:
                progress(fold, len(plan.parts))
    slow = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    other = dict.fromkeys(str(w.message).split("\n")[0] for w in caught if w not in slow)
    fits = len(plan.parts) * (len(plan.costs) * plan.inner + 1)
    return Fitted(predicted, tuple(costs), len(slow), fits, tuple(other)[:3])


def _trained(X: Array, y: Array, plan: Plan) -> tuple[Any, float]:
    """A classifier, and its C."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    if plan.classifier == "svm":
        last = LinearSVC(C=plan.costs[0], max_iter=_ITERATIONS, random_state=plan.seed)
    else:
        last = LogisticRegression(C=plan.costs[0], max_iter=_ITERATIONS)
    line = Pipeline([("standardise", StandardScaler()), ("classify", last)])
    if not plan.inner:
        return line.fit(X, y), plan.costs[0]
    inner = StratifiedKFold(plan.inner, shuffle=True, random_state=plan.seed)
    search = GridSearchCV(
        line, {"classify__C": list(plan.costs)}, cv=inner, scoring="accuracy", error_score="raise"
    )
    search.fit(X, y)
    return search.best_estimator_, float(search.best_params_["classify__C"])


# -- statistics -----------------------------------------------------------------------------------
