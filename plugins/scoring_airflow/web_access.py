"""Who may see which deployment: Airflow's own login, and its permission to read the deployment's Dag.

Airflow mounts a plugin's app without any authentication, so every route depends on `signed_in`. Airflow's security
module is imported when a request comes: the plugin is loaded by workers and Dag processors too, which never need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from fastapi import HTTPException, Request, status

from scoring_airflow.plan import score_id

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


async def signed_in(request: Request) -> Any:
    """Return Airflow's user, from the session cookie or a bearer token.

    Raises:
        HTTPException: 401 or 403, nobody is signed in.
    """
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user

    return await get_user(request, None, await bearer_scheme(request))


async def signed_in_reader(request: Request) -> Any:
    """Return Airflow's user, for pages: whoever is not signed in is asked to, however their token is wrong.

    Raises:
        HTTPException: 401, nobody is signed in.
    """
    try:
        return await signed_in(request)
    except HTTPException as error:
        raise HTTPException(status.HTTP_401_UNAUTHORIZED, error.detail) from error


def may_read(user: BaseUser, deployment: str) -> bool:
    """Say whether the user may read the Dag that scores a deployment."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
    from airflow.models.dag import DagModel

    dag_id = score_id(deployment)
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return bool(get_auth_manager().is_authorized_dag(method="GET", details=details, user=user))


def check_may_read(user: BaseUser, deployment: str) -> None:
    """Refuse a user who may not read the Dag that scores a deployment.

    Raises:
        HTTPException: 403.
    """
    if not may_read(user, deployment):
        raise HTTPException(
            status.HTTP_403_FORBIDDEN,
            f"You may not see deployment {deployment!r}: expected Airflow's permission to read Dag "
            f"{score_id(deployment)!r}, got none. Ask an Airflow administrator for it.",
        )


def login_address(request: Request) -> str:
    """Return Airflow's login page, which leads back to the address of `request`."""
    from airflow.api_fastapi.app import API_ROOT_PATH

    query = f"?{request.url.query}" if request.url.query else ""
    return f"{API_ROOT_PATH}api/v2/auth/login?{urlencode({'next': request.url.path + query})}"
