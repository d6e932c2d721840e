"""The application: all routes, in an order that lets the longer paths win."""

from __future__ import annotations

from starlette.applications import Starlette

from tests.hub_server import (
    accounts,
    cards,
    commits,
    discussions,
    errors,
    lfs,
    listings,
    refs,
    repos,
    resolve,
    trees,
    xet,
)

from .site import Site


def build(site: Site) -> Starlette:
    """Return the application over the state of a site."""
    parts = (
        accounts,
        cards,
        repos,
        trees,
        refs,
        commits,
        discussions,
        xet,
        lfs,
        resolve,
        listings,
    )
    routes = [route for part in parts for route in part.ROUTES]
    app = Starlette(routes=routes, exception_handlers={errors.HubError: errors.answer})
    app.state.site = site
    return app
