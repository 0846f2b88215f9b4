"""Signing in by an OpenID Connect provider: authorization code with PKCE, by Authlib."""

from __future__ import annotations

from typing import Any

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response

from monitor.people.accounts import AccountError, People
from monitor.people.roles import strongest
from monitor.settings import OidcSettings
from monitor.store.state import Person
from monitor.telemetry import logger


class ProviderError(Exception):
    """Signing in by the provider failed; the message may be shown to whoever tried."""


class Provider:
    """The provider of the settings. Its keys and addresses are read from its discovery document."""

    def __init__(self, settings: OidcSettings) -> None:
        assert settings.issuer is not None
        assert settings.client_secret is not None
        self.settings = settings
        self._issuer = settings.issuer.rstrip("/")
        self._client = OAuth().register(
            "provider",
            client_id=settings.client_id,
            client_secret=settings.client_secret.get_secret_value(),
            server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": settings.scopes,
                "code_challenge_method": "S256",
                "timeout": 10,
                "trust_env": False,
            },
        )

    async def depart(self, request: Request, back: str) -> Response:
        """Send the browser to the provider, which sends it ``back``. Raises ProviderError."""
        try:
            known = await self._client.load_server_metadata()
            if str(known.get("issuer", "")).rstrip("/") != self._issuer:
                raise self._fault("the provider calls itself otherwise than the settings do", None)
            answer: Response = await self._client.authorize_redirect(request, back)
            return answer
        except (httpx2.HTTPError, AuthlibBaseError, ValueError) as error:
            raise self._fault("the provider does not answer", error) from None

    async def claims(self, request: Request) -> dict[str, Any]:
        """What the provider says of whoever comes back. Raises ProviderError."""
        try:
            token = await self._client.authorize_access_token(request)
            claims = dict(token.get("userinfo") or {})
            if claims and self.settings.role_claim not in claims:
                more = dict(await self._client.userinfo(token=token))
                if more.get("sub") == claims["sub"]:
                    claims = {**more, **claims}
        except (httpx2.HTTPError, AuthlibBaseError, JoseError, ValueError, KeyError) as error:
            raise self._fault("the provider's answer cannot be used; try again", error) from None
        if not claims.get("sub"):
            raise self._fault("the provider does not say who you are", None)
        return claims

    def person(self, people: People, claims: dict[str, Any]) -> Person:
        """The account behind the claims, with the role that they give. Raises ProviderError."""
        values = claims.get(self.settings.role_claim) or ()
        values = [values] if isinstance(values, str) else values
        role = strongest(self.settings.roles[one] for one in values if one in self.settings.roles)
        name = str(claims.get(self.settings.name_claim) or claims.get("email") or claims["sub"])
        if role is None:
            raise ProviderError(
                f"{name[:80]} has no role here; no value of {self.settings.role_claim!r} gives one"
            )
        seen = {"email": _text(claims.get("email")), "display_name": _text(claims.get("name"))}
        try:
            return people.of_provider(self._issuer, str(claims["sub"]), name, role, **seen)
        except AccountError as error:
            raise ProviderError(str(error)) from None

    def _fault(self, words: str, error: Exception | None) -> ProviderError:
        why = None if error is None else f"{type(error).__name__}: {error}"[:300]
        logger().warning("signing in by the provider failed", issuer=self._issuer, why=why)
        return ProviderError(words)


def _text(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None
