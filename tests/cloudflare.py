"""Cloudflare's REST API on this machine, as far as a deploy by Wrangler needs it.

It remembers what an account has, and refuses what the real one refuses, with its codes.
"""

import json
import re
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule

from toolchain import node_environment

ACCOUNT = "0123456789abcdef0123456789abcdef"
TOKEN = "token-of-the-account"

#: Types of bindings that name something of the account: the key with the name, the
#: attribute of `Cloudflare` that must hold it, and the code of the refusal.
TARGETS = {
    "d1": ("id", "databases", 10181),
    "hyperdrive": ("id", "hyperdrives", 10157),
    "kv_namespace": ("namespace_id", "namespaces", 10041),
    "queue": ("queue_name", "queues", 11000),
    "r2_bucket": ("bucket_name", "buckets", 10085),
    "vectorize": ("index_name", "indexes", 10159),
}


class Refusal(Exception):
    """An answer of the API that is an error.

    Attributes:
        status: Its HTTP status.
        code: Cloudflare's code of the error.
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        """Keep what makes the answer."""
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class Script:
    """A Worker of the account.

    Attributes:
        bindings: What it is bound to, its vars and its secrets, by name.
        tag: The tag of the last migration that was applied.
        classes: The id of the namespace of each Durable Object class.
        assets: Its static files, as Wrangler lists them, by path.
        crons: When its cron jobs run.
        domains: The host names that it serves.
        is_on_workers_dev: Whether workers.dev serves it.
        versions: The bindings and assets that were uploaded, by version.
    """

    bindings: dict[str, dict] = field(default_factory=dict)
    tag: str | None = None
    classes: dict[str, str] = field(default_factory=dict)
    assets: dict[str, dict] = field(default_factory=dict)
    crons: list[str] = field(default_factory=list)
    domains: list[str] = field(default_factory=list)
    is_on_workers_dev: bool = False
    versions: dict[str, tuple[dict, dict]] = field(default_factory=dict)

    @property
    def secrets(self) -> dict[str, str]:
        """The values of its secrets, by name."""
        return {
            name: binding["text"]
            for name, binding in self.bindings.items()
            if binding["type"] == "secret_text"
        }


#: The methods of `Cloudflare` that answer requests.
ROUTES = Map()


def route(method: str, path: str) -> Callable:
    """Let the decorated method answer requests; `path` is below the account's."""

    def register(function: Callable) -> Callable:
        ROUTES.add(Rule(path, methods=[method], endpoint=function))
        return function

    return register


def exported(code: str) -> set[str]:
    """Return the names that a module bundled by Wrangler exports."""
    names = ",".join(re.findall(r"(?ms)^export \{(.*?)\}", code)).split(",")
    return {name.split()[-1] for name in names if name.strip()}


class Cloudflare(HTTPServer):
    """The API with one account; it listens once its context is entered.

    Attributes:
        scripts: The Workers, by name.
        namespaces: Those of Workers KV, by id.
        databases: Those of D1, by id.
        buckets: Those of R2, by name.
        queues: With their consumers, by name.
        indexes: Those of Vectorize, by name.
        hyperdrives: The configurations of Hyperdrive, by id.
        workflows: With their script and class, by name.
        forbidden: Beginnings of paths below the account's that the token may not use.
        refused: The method, the path and the code of each refusal, but for questions
            whether something is there.
    """

    def __init__(self) -> None:
        """Make an empty account."""
        super().__init__("127.0.0.1", 0, threaded=True)
        self.scripts: dict[str, Script] = {}
        self.namespaces: dict[str, dict] = {}
        self.databases: dict[str, dict] = {}
        self.buckets: dict[str, dict] = {}
        self.queues: dict[str, dict] = {}
        self.indexes: dict[str, dict] = {}
        self.hyperdrives: dict[str, dict] = {}
        self.workflows: dict[str, dict] = {}
        self.forbidden: set[str] = set()
        self.refused: list[tuple[str, str, int]] = []
        self._contents: dict[str, sqlite3.Connection] = {}
        self._uploads: dict[str, tuple[dict, set[str]]] = {}
        self._files: set[str] = set()
        self._lock = threading.Lock()
        self.expect_request(re.compile(".*")).respond_with_handler(self._answer)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a Wrangler that deploys to this account."""
        return {
            **node_environment(),
            "CLOUDFLARE_API_BASE_URL": self.url_for("/client/v4"),
            "CLOUDFLARE_API_TOKEN": TOKEN,
            "CLOUDFLARE_ACCOUNT_ID": ACCOUNT,
        }

    def rows(self, database: str, sql: str) -> list[dict]:
        """Run SQL in the D1 database of a name or an id; return what a query finds.

        Raises:
            Refusal: There is no such database.
            sqlite3.Error: The SQL is not valid.
        """
        content = self._contents[self._database(database)["uuid"]]
        if not sql.lstrip().upper().startswith("SELECT"):
            content.executescript(sql)
            return []
        return [dict(row) for row in content.execute(sql)]

    def _answer(self, request: Request) -> Response:
        path = request.path.removeprefix("/client/v4")
        path = path.removeprefix(f"/accounts/{ACCOUNT}")
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        result, errors, status = None, [], 200
        with self._lock:
            try:
                if token not in (TOKEN, *self._uploads):
                    raise Refusal(401, 10000, "Authentication error")
                if path.startswith(tuple(self.forbidden)):
                    raise Refusal(403, 10000, "Authentication error")
                try:
                    urls = ROUTES.bind("")
                    endpoint, names = urls.match(path, request.method)
                except HTTPException:
                    raise Refusal(404, 7003, f"Could not route to {path}") from None
                result = endpoint(self, request, **names)
            except Refusal as refusal:
                status = refusal.status
                errors = [{"code": refusal.code, "message": str(refusal)}]
                is_question = request.method == "GET" and status == 404
                if not is_question or refusal.code == 7003:
                    self.refused.append((request.method, path, refusal.code))
        answer = {"success": not errors, "result": result, "errors": errors}
        content = json.dumps({**answer, "messages": []})
        return Response(content, status, mimetype="application/json")

    def _add(self, there: dict, key: str, name: str, made: dict, code: int) -> dict:
        # A name is taken once, even where ids are the keys.
        if any(one[name] == made[name] for one in there.values()):
            raise Refusal(409, code, f"The name {made[name]} is taken.")
        there[made[key]] = made
        return made

    # --- The token ----------------------------------------------------------------

    @route("GET", "/user/tokens/verify")
    def _verify(self, _: Request) -> dict:
        return {"id": ACCOUNT, "status": "active"}

    @route("GET", "/accounts")
    def _accounts(self, _: Request) -> list[dict]:
        return [{"id": ACCOUNT, "name": "Tester"}]

    @route("GET", "/memberships")
    def _memberships(self, _: Request) -> list[dict]:
        return [{"account": {"id": ACCOUNT, "name": "Tester"}, "roles": []}]

    @route("GET", "/user")
    def _user(self, _: Request) -> None:
        # As of a token that is for deploys only.
        raise Refusal(403, 9109, "Unauthorized to access requested resource")

    # --- Workers ------------------------------------------------------------------

    @route("GET", "/workers/scripts")
    def _list_scripts(self, _: Request) -> list[dict]:
        return [{"id": name} for name in self.scripts]

    def _script(self, name: str, code: int = 10007) -> Script:
        if name not in self.scripts:
            raise Refusal(404, code, "This Worker does not exist on your account.")
        return self.scripts[name]

    @route("GET", "/workers/services/<name>")
    def _service(self, _: Request, name: str) -> dict:
        tag = self._script(name, 10090).tag
        script = {"tag": name, "migration_tag": tag, "last_deployed_from": "wrangler"}
        return {"default_environment": {"environment": "production", "script": script}}

    @route("GET", "/workers/scripts/<name>/settings")
    def _settings(self, _: Request, name: str) -> dict:
        return {"bindings": list(self._script(name).bindings.values())}

    @route("PATCH", "/workers/scripts/<name>/script-settings")
    def _change_settings(self, _: Request, name: str) -> dict:
        self._script(name)
        return {}

    @route("GET", "/workers/scripts/<name>/secrets")
    def _secrets(self, _: Request, name: str) -> list[dict]:
        secrets = self._script(name).secrets
        return [{"name": secret, "type": "secret_text"} for secret in secrets]

    @route("PUT", "/workers/scripts/<name>/secrets")
    def _put_secret(self, request: Request, name: str) -> dict:
        secret = json.loads(request.data)
        self._script(name).bindings[secret["name"]] = secret
        return {"name": secret["name"], "type": "secret_text"}

    def _upload(self, request: Request, name: str) -> tuple[dict, dict, dict]:
        """Check an upload; return its bindings, its assets and its metadata."""
        metadata = json.loads(request.form["metadata"])
        before = self.scripts.get(name, Script())
        kept = metadata.get("keep_bindings", [])
        bindings = {
            key: binding
            for key, binding in before.bindings.items()
            if binding["type"] in kept
        }
        for binding in metadata["bindings"]:
            key, kind = binding["name"], binding["type"]
            if kind == "inherit":
                if key not in before.bindings:
                    message = f"inherit binding '{key}' is invalid: there is none."
                    raise Refusal(400, 10057, message)
                binding = before.bindings[key]
            elif kind in TARGETS:
                target, where, code = TARGETS[kind]
                if binding[target] not in getattr(self, where):
                    message = f"{kind} binding '{key}' references '{binding[target]}' "
                    raise Refusal(400, code, f"{message}which was not found.")
            bindings[key] = binding
        upload = metadata.get("assets", {}).get("jwt")
        return bindings, self._uploads[upload][0] if upload else {}, metadata

    def _check_classes(
        self, request: Request, metadata: dict, bindings: dict, classes: dict
    ) -> None:
        names = exported(request.files[metadata["main_module"]].read().decode())
        for missing in classes.keys() - names:
            message = f"New version of script does not export class '{missing}' which "
            raise Refusal(403, 10064, f"{message}is depended on by Durable Objects.")
        for binding in bindings.values():
            bound = binding.get("class_name")
            if binding["type"] == "durable_object_namespace" and bound not in classes:
                message = f"Cannot create binding for class '{bound}' because it is "
                message += "not currently configured to implement Durable Objects."
                raise Refusal(400, 10061, message)

    def _migrated(self, before: Script, migrations: dict, bindings: dict) -> dict:
        """Return the classes after migrations, which are applied in order."""
        if migrations.get("old_tag") != before.tag:
            message = f"Migration tag precondition failed; current tag is {before.tag}"
            raise Refusal(412, 10079, message)
        classes = dict(before.classes)
        for step in migrations["steps"]:
            for renamed in step.get("renamed_classes", []):
                classes[renamed["to"]] = classes.pop(renamed["from"])
            for made in step.get("new_sqlite_classes", []):
                if made in classes:
                    message = f"Cannot apply new-sqlite-class migration to '{made}' "
                    message += "that is already depended on by Durable Objects."
                    raise Refusal(412, 10074, message)
                classes[made] = uuid.uuid4().hex
            for gone in step.get("deleted_classes", []):
                if gone in {one.get("class_name") for one in bindings.values()}:
                    message = f"Cannot apply --delete-class migration to '{gone}' "
                    message += "without also removing the binding that references it."
                    raise Refusal(400, 10061, message)
                del classes[gone]
        return classes

    @route("PUT", "/workers/scripts/<name>")
    def _put_script(self, request: Request, name: str) -> dict:
        bindings, assets, metadata = self._upload(request, name)
        script = self.scripts.get(name, Script())
        migrations = metadata.get("migrations")
        classes, tag = script.classes, script.tag
        if migrations:
            classes = self._migrated(script, migrations, bindings)
            tag = migrations["new_tag"]
        self._check_classes(request, metadata, bindings, classes)
        script.bindings, script.assets = bindings, assets
        script.classes, script.tag = classes, tag
        self.scripts[name] = script
        return {"id": name, "deployment_id": uuid.uuid4().hex, "startup_time_ms": 1}

    @route("POST", "/workers/scripts/<name>/versions")
    def _post_version(self, request: Request, name: str) -> dict:
        script = self._script(name)
        bindings, assets, metadata = self._upload(request, name)
        self._check_classes(request, metadata, bindings, script.classes)
        version = str(uuid.uuid4())
        script.versions[version] = (bindings, assets)
        return {"id": version, "resources": {"script": {}}, "startup_time_ms": 1}

    @route("GET", "/workers/scripts/<name>/deployments")
    def _deployments(self, _: Request, name: str) -> dict:
        self._script(name)
        return {"deployments": []}

    @route("POST", "/workers/scripts/<name>/deployments")
    def _deploy(self, request: Request, name: str) -> dict:
        script = self._script(name)
        (version,) = json.loads(request.data)["versions"]
        script.bindings, script.assets = script.versions[version["version_id"]]
        return {}

    # --- Static files -------------------------------------------------------------

    @route("POST", "/workers/scripts/<name>/assets-upload-session")
    def _start_upload(self, request: Request, name: str) -> dict:
        manifest = json.loads(request.data)["manifest"]
        missing = {file["hash"] for file in manifest.values()} - self._files
        upload = uuid.uuid4().hex
        self._uploads[upload] = (manifest, missing)
        return {"jwt": upload, "buckets": [list(missing)] if missing else []}

    @route("POST", "/workers/assets/upload")
    def _upload_files(self, request: Request) -> dict:
        self._files.update(request.files)
        return {"jwt": request.headers["Authorization"].removeprefix("Bearer ")}

    # --- Triggers of a Worker -----------------------------------------------------

    @route("GET", "/workers/subdomain")
    def _subdomain(self, _: Request) -> dict:
        return {"subdomain": "tester"}

    @route("GET", "/workers/workers/<name>")
    def _worker(self, _: Request, name: str) -> dict:
        return {"subdomain": {"enabled": self._script(name).is_on_workers_dev}}

    @route("POST", "/workers/scripts/<name>/subdomain")
    def _set_subdomain(self, request: Request, name: str) -> dict:
        enabled = json.loads(request.data)["enabled"]
        self._script(name).is_on_workers_dev = enabled
        return {"enabled": enabled, "previews_enabled": False}

    @route("PUT", "/workers/scripts/<name>/schedules")
    def _set_crons(self, request: Request, name: str) -> None:
        self._script(name).crons = [one["cron"] for one in json.loads(request.data)]

    @route("POST", "/workers/scripts/<name>/domains/changeset")
    def _compare_domains(self, _: Request, name: str) -> dict:
        self._script(name)
        return {"added": [], "removed": [], "updated": [], "conflicting": []}

    @route("PUT", "/workers/scripts/<name>/domains/records")
    def _set_domains(self, request: Request, name: str) -> None:
        origins = json.loads(request.data)["origins"]
        self._script(name).domains = [origin["hostname"] for origin in origins]

    # --- Workers KV, R2, Vectorize, Hyperdrive, Workflows -------------------------

    @route("GET", "/storage/kv/namespaces")
    def _list_namespaces(self, request: Request) -> list[dict]:
        # One page has all, and Wrangler asks for pages until one is empty.
        is_first = request.args.get("page", "1") == "1"
        return list(self.namespaces.values()) if is_first else []

    @route("POST", "/storage/kv/namespaces")
    def _make_namespace(self, request: Request) -> dict:
        made = {"id": uuid.uuid4().hex, **json.loads(request.data)}
        return self._add(self.namespaces, "id", "title", made, 10014)

    @route("GET", "/r2/buckets")
    def _list_buckets(self, _: Request) -> dict:
        return {"buckets": list(self.buckets.values())}

    @route("GET", "/r2/buckets/<name>")
    def _bucket(self, _: Request, name: str) -> dict:
        if name not in self.buckets:
            raise Refusal(404, 10006, "The specified bucket does not exist.")
        return self.buckets[name]

    @route("POST", "/r2/buckets")
    def _make_bucket(self, request: Request) -> dict:
        return self._add(self.buckets, "name", "name", json.loads(request.data), 10004)

    @route("GET", "/vectorize/v2/indexes")
    def _list_indexes(self, _: Request) -> list[dict]:
        return list(self.indexes.values())

    @route("POST", "/vectorize/v2/indexes")
    def _make_index(self, request: Request) -> dict:
        return self._add(self.indexes, "name", "name", json.loads(request.data), 3002)

    @route("GET", "/hyperdrive/configs")
    def _list_hyperdrives(self, _: Request) -> list[dict]:
        return list(self.hyperdrives.values())

    @route("POST", "/hyperdrive/configs")
    def _make_hyperdrive(self, request: Request) -> dict:
        made = {"id": uuid.uuid4().hex, **json.loads(request.data)}
        return self._add(self.hyperdrives, "id", "name", made, 2017)

    @route("GET", "/workflows/<name>")
    def _workflow(self, _: Request, name: str) -> dict:
        if name not in self.workflows:
            raise Refusal(404, 10200, "workflow.not_found")
        return self.workflows[name]

    @route("PUT", "/workflows/<name>")
    def _put_workflow(self, request: Request, name: str) -> dict:
        self.workflows[name] = json.loads(request.data)
        return self.workflows[name]

    # --- D1 -----------------------------------------------------------------------

    def _database(self, name: str) -> dict:
        for database in self.databases.values():
            if name in database.values():
                return database
        raise Refusal(404, 7404, f"The database {name} could not be found")

    @route("GET", "/d1/database")
    def _list_databases(self, _: Request) -> list[dict]:
        return list(self.databases.values())

    @route("GET", "/d1/database/<name>")
    def _get_database(self, _: Request, name: str) -> dict:
        return self._database(name)

    @route("POST", "/d1/database")
    def _make_database(self, request: Request) -> dict:
        made = {"uuid": str(uuid.uuid4()), "name": json.loads(request.data)["name"]}
        self._add(self.databases, "uuid", "name", made, 7502)
        content = sqlite3.connect(":memory:", check_same_thread=False)
        content.row_factory = sqlite3.Row
        self._contents[made["uuid"]] = content
        return made

    @route("POST", "/d1/database/<database>/query")
    def _query(self, request: Request, database: str) -> list[dict]:
        try:
            rows = self.rows(database, json.loads(request.data)["sql"])
        except sqlite3.Error as error:
            raise Refusal(400, 7500, str(error)) from error
        return [{"results": rows, "success": True, "meta": {}}]

    # --- Queues -------------------------------------------------------------------

    @route("GET", "/queues")
    def _list_queues(self, request: Request) -> list[dict]:
        names = request.args.getlist("name") or self.queues
        return [self.queues[name] for name in names if name in self.queues]

    @route("POST", "/queues")
    def _make_queue(self, request: Request) -> dict:
        name = json.loads(request.data)["queue_name"]
        made = {"queue_id": name, "queue_name": name, "consumers": []}
        return self._add(self.queues, "queue_name", "queue_name", made, 11009)

    @route("POST", "/queues/<queue>/consumers")
    def _make_consumer(self, request: Request, queue: str) -> dict:
        consumer = self._consumer(request)
        if self.queues[queue]["consumers"]:
            raise Refusal(400, 11004, "The queue has a consumer.")
        self.queues[queue]["consumers"] = [consumer]
        return consumer

    @route("PUT", "/queues/<queue>/consumers/<consumer>")
    def _put_consumer(self, request: Request, queue: str, consumer: str) -> dict:
        changed = self._consumer(request)
        self.queues[queue]["consumers"] = [changed]
        return changed

    @route("DELETE", "/queues/<queue>/consumers/<consumer>")
    def _remove_consumer(self, _: Request, queue: str, consumer: str) -> None:
        self.queues[queue]["consumers"] = []

    def _consumer(self, request: Request) -> dict:
        body = json.loads(request.data)
        dead_letters = body.get("dead_letter_queue")
        if dead_letters is not None and dead_letters not in self.queues:
            message = f"The dead-letter queue '{dead_letters}' does not exist."
            raise Refusal(400, 11000, message)
        return {"consumer_id": "1", "script": body["script_name"], **body}


@pytest.fixture
def cloudflare() -> Iterator[Cloudflare]:
    """The API with an empty account."""
    with Cloudflare() as api:
        yield api
