"""What the document cannot say to a machine that fills in its templates."""

import itertools
import os

import requests
import schemathesis

URL = os.environ["SERVICE_URL"]
TOKEN = os.environ.get("SERVICE_TOKEN")
# So many appends of one stream in a row: one of them may close it.
APPENDS = 4
TIMEOUT_SECONDS = 20

appends = itertools.count()


@schemathesis.hook
def filter_case(context, case):
    # `/v1/stream/{path}` is the short form of a stream's URL, so a project of this name is another
    # operation: its answers are not those of the one that is tested.
    return (case.path_parameters or {}).get("project") != "stream"


@schemathesis.hook
def before_call(context, case, kwargs):
    # An append to no stream is a 404, whatever else it says: most of them find one of their type.
    operation = case.operation
    if operation.method.upper() != "POST" or not operation.path.endswith("/{path}"):
        return
    # `/v1/{project}/publish/{path}` is about the stream at `/v1/{project}/stream/{path}`.
    _, version, project, _, path = case.formatted_path.split("/", 4)
    url = f"{URL}/{version}/{project}/stream/{path}"
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    media_type = case.media_type if case.media_type not in (None, "*/*") else "application/json"
    try:
        if next(appends) % APPENDS == 0:
            requests.delete(url, headers=headers, timeout=TIMEOUT_SECONDS)
        headers["Content-Type"] = media_type
        requests.put(url, headers=headers, timeout=TIMEOUT_SECONDS)
    except requests.RequestException:
        # A path that no URL can hold: the case itself finds out.
        pass
