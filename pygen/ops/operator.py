"""How an operator is made: a plain-PyTorch function becomes its schema and default kernel."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.library import define, infer_schema, register_autograd, register_fake, register_kernel

P = ParamSpec("P")
R = TypeVar("R")


def operator(
    *,
    fake: Callable[..., Any],
    mutates: Iterable[str] = (),
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., Any] | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register the decorated plain-PyTorch function as operator ``torch.ops.pygen.<its name>``.

    The function is the reference and serves every device that has no faster kernel (dispatch key
    ``CompositeExplicitAutograd``); kernels of the compiled module take precedence where they exist.
    Its annotations and defaults give the schema.

    Parameters
    ----------
    fake : callable
        Same parameters; returns empty tensors of the result's shapes, dtypes and device.
    mutates : iterable of str
        Names of the tensor parameters written in place.
    backward, setup_context : callable, optional
        As in :func:`torch.library.register_autograd`.

    Returns
    -------
    callable
        Calls the operator through the dispatcher; keeps the function's name, docstring and
        signature.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__name__
        qualified = f"pygen::{name}"
        define(qualified, infer_schema(function, mutates_args=tuple(mutates)))
        register_kernel(qualified, "default", function)
        register_fake(qualified, fake)
        if backward is not None:
            register_autograd(qualified, backward, setup_context=setup_context)
        overload = getattr(torch.ops.pygen, name).default

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return overload(*args, **kwargs)

        return call

    return decorate
