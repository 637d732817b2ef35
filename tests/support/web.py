"""A browser's side of the dashboard's WSGI application: requests, the session cookie, the Origin of a form."""

import io
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

HOST = "localhost:8080"
ORIGIN = f"http://{HOST}"
PASSWORD = "correct horse battery"


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Sends requests to a WSGI application and keeps its cookie."""

    app: Any
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: bytes = b"", **environ: str) -> Answer:
        """Send a request; `environ` replaces or adds WSGI's variables."""
        path, _, query = path.partition("?")
        error = io.StringIO()
        request: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": HOST,
            "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "REMOTE_ADDR": "127.0.0.1",
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": error,
            "wsgi.url_scheme": "http",
            **environ,
        }
        started: list[tuple[str, list[tuple[str, str]]]] = []
        parts = self.app(request, lambda status, headers, _error=None: started.append((status, headers)))
        content = b"".join(parts).decode(errors="replace")
        if hasattr(parts, "close"):
            parts.close()
        status, headers = started[-1]
        assert PASSWORD not in content + error.getvalue()
        found = {name.lower(): value for name, value in headers}
        if "set-cookie" in found:
            name, _, rest = found["set-cookie"].partition("=")
            self.cookies[name] = rest.partition(";")[0]
        return Answer(int(status[:3]), found, content)

    def get(self, path: str, **environ: str) -> Answer:
        """Open a page."""
        return self.ask("GET", path, **environ)

    def post(self, path: str, fields: dict[str, str] | None = None, **environ: str) -> Answer:
        """Send a form from one of the dashboard's own pages, unless `HTTP_ORIGIN` says otherwise."""
        sent = {"HTTP_ORIGIN": ORIGIN, "CONTENT_TYPE": "application/x-www-form-urlencoded", **environ}
        return self.ask("POST", path, urlencode(fields or {}).encode(), **sent)

    def log_in(self, password: str = PASSWORD) -> Answer:
        """Send the login form."""
        return self.post("/login", {"password": password, "next": "/"})
