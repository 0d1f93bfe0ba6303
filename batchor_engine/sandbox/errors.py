"""Two failures: the sandbox cannot run at all, or one HTTP call is refused in the provider's error shape."""

from __future__ import annotations

from collections.abc import Mapping


class SandboxError(Exception):
    """The sandbox cannot start or was used wrongly; the message is one line that says what to do."""


class ApiError(Exception):
    """One call is answered with an HTTP error in the shape `{"error": {message, type, param, code}}`."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = kind
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, object]:
        """The JSON body that the provider would send."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}


def error_type(status: int) -> str:
    """The provider's `type` word for an HTTP status."""
    words = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    if status >= 500:
        return "server_error"
    return words.get(status, "invalid_request_error")
