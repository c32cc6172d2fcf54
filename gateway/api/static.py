"""Files of the package, as browsers get them."""

from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles


class FreshFiles(StaticFiles):
    """Files that a browser asks for anew each time, so that modules of two versions never meet in one page."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Serve a file, to be checked before it is used again."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response
