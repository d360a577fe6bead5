"""Health, measures and the audit trail: what an operator looks at."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from core_api.app import answer

router = APIRouter()


@router.get("/health", response_model=None, tags=["operations"], summary="The process answers")
async def health(request: Request) -> Response:
    return answer(request, {"status": "ok"})
