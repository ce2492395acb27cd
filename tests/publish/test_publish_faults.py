"""Publishing while the Hub, the line or the machine fails, and while others look and publish.

A second version goes over a first. Whatever happens at whichever request: main shows all of the one
or all of the other, the tag never something else, and the same command finishes the work.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from copy import copy
from pathlib import Path

import pytest
from hub.faults import FINAL, PASSING, Fault
from hub.loopback import TOKEN
from hub.server import HubServer
from hub.store import Entry, Repo
from published import IMPATIENT, QUICK, REPO, send

from synthct.errors import ConflictError, HubError, SynthCTError
from synthct.publish.hub.bundle import Bundle
from synthct.publish.hub.connection import RetryPolicy
from synthct.publish.hub.gate import pack
from synthct.publish.hub.repo import HubRepo, Refs

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

Start = Callable[[], Repo]
AUTH = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def bundles(versions: dict[str, Path]) -> dict[str, Bundle]:
    return {called: pack(str(folder)) for called, folder in versions.items()}


@pytest.fixture
def start(hub: HubServer, bundles: dict[str, Bundle]) -> Start:
    """Puts the Hub back to where it shows version 1.0.0 only."""
    send(bundles["1.0.0"])
    repo, blobs = hub.store.repos["dataset", REPO], dict(hub.store.blobs)

    def start() -> Repo:
        fresh = copy(repo)
        fresh.branches, fresh.tags = dict(repo.branches), dict(repo.tags)
        fresh.commits = dict(repo.commits)
        hub.store.repos["dataset", REPO] = fresh
        hub.store.blobs = dict(blobs)
        hub.faults.arm()
        return fresh

    return start


@pytest.fixture
def points(hub: HubServer, start: Start, bundles: dict[str, Bundle]) -> int:
    """How many requests it takes to publish 1.1.0."""
    start()
    send(bundles["1.1.0"])
    count = len(hub.faults.seen)
    assert count > 40
    return count


def is_whole(tree: Mapping[str, Entry], bundle: Bundle) -> bool:
    """Whether a tree is that of a version, and nothing else."""
    found = {path: len(entry.data) for path, entry in tree.items() if path != ".gitattributes"}
    return found == {item.path: item.size for item in bundle.items} and all(
        tree[item.path].data == item.read() for item in bundle.items
    )


def check_whole(repo: Repo, old: Bundle, new: Bundle) -> bool:
    """That main and the tags show whole versions; whether main shows the new one."""
    main = repo.at("main").tree
    shows_new = is_whole(main, new)
    assert shows_new or is_whole(main, old)
    assert is_whole(repo.at("1.0.0").tree, old)
    assert set(repo.tags) <= {"1.0.0", "1.1.0"}
    if "1.1.0" in repo.tags:
        assert shows_new
        assert is_whole(repo.at("1.1.0").tree, new)
    return shows_new


def check_finished(repo: Repo, old: Bundle, new: Bundle) -> None:
    assert check_whole(repo, old, new)
    assert repo.tags["1.1.0"] == repo.branches["main"]
    assert list(repo.branches) == ["main"]


def suffer(
    hub: HubServer,
    start: Start,
    bundles: dict[str, Bundle],
    fault: Fault,
    retry_policy: RetryPolicy,
) -> SynthCTError | None:
    """Publish with a fault, check what readers see, and publish again without; the error."""
    old, new = bundles["1.0.0"], bundles["1.1.0"]
    repo, error = start(), None
    hub.faults.arm(fault)
    try:
        send(new, retry_policy)
    except SynthCTError as err:
        error = err
    assert error is None or TOKEN not in f"{error} {error.__cause__}", "the Hub repeats it"
    hub.faults.arm()
    shows_new = check_whole(repo, old, new)
    assert shows_new or error is not None, fault
    send(new)
    check_finished(repo, old, new)
    return error


def every(step: int, points: int) -> Iterator[int]:
    """Some of the points, and the last."""
    yield from (*range(1, points, step), points)


def faults_once(points: int, kinds: int) -> Iterator[Fault]:
    """At each point so many of the faults that may pass, by turns."""
    for at in range(1, points + 1):
        for turn in range(kinds):
            yield Fault(at, PASSING[(at + turn) % len(PASSING)])


def check_once(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int, kinds: int
) -> int:
    tried = 0
    for fault in faults_once(points, kinds):
        assert suffer(hub, start, bundles, fault, QUICK) is None, fault
        tried += 1
    return tried


def check_lasting(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int, step: int
) -> int:
    tried = 0
    for at in every(step, points):
        for kind in PASSING if step == 1 else [PASSING[at // step % len(PASSING)]]:
            error = suffer(hub, start, bundles, Fault(at, kind, lasting=True), IMPATIENT)
            tried += 1
            if (at, kind) == (points, "garbage"):  # all is done, and nobody reads that answer
                continue
            wanted = ConflictError if kind in ("409", "412") else HubError
            assert type(error) is wanted, (at, kind, error)
            assert "synthct publish" in str(error), "says how to go on"
    return tried


@pytest.mark.long
def test_what_goes_wrong_once_at_a_request_is_tried_again(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    assert check_once(hub, start, bundles, points, 1) == points


@pytest.mark.slow
def test_whatever_goes_wrong_once_at_any_request_is_tried_again(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    assert check_once(hub, start, bundles, points, len(PASSING)) == points * len(PASSING)


@pytest.mark.long
def test_what_stays_wrong_is_given_up_and_leaves_main_whole(
    hub: HubServer,
    start: Start,
    bundles: dict[str, Bundle],
    points: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "synthct")
    assert check_lasting(hub, start, bundles, points, 4) > points / 4
    assert "trying again" in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.slow
def test_whatever_stays_wrong_from_any_request_is_given_up_and_leaves_main_whole(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    assert check_lasting(hub, start, bundles, points, 1) == points * len(PASSING)


@pytest.mark.long
@pytest.mark.parametrize("kind", FINAL)
def test_what_the_hub_forbids_is_not_asked_again(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int, kind: str
) -> None:
    for at in every(7, points):
        began = time.monotonic()
        error = suffer(hub, start, bundles, Fault(at, kind), RetryPolicy(first_s=30))
        assert type(error) is HubError
        assert kind in str(error)
        assert time.monotonic() - began < 30, "without a pause"


@pytest.mark.parametrize(
    "kind", ["500", *(pytest.param(k, marks=pytest.mark.long) for k in ("409", "lost", "garbage"))]
)
def test_a_repository_is_made_and_gated_through_faults(
    hub: HubServer, bundles: dict[str, Bundle], kind: str
) -> None:
    new = bundles["1.0.0"]
    for at in range(1, 11):
        hub.store.repos.clear()
        hub.faults.arm(Fault(at, kind))
        send(new)
        repo = hub.store.repos["dataset", REPO]
        assert is_whole(repo.at("main").tree, new)
        assert repo.tags == {"1.0.0": repo.branches["main"]}
        assert list(repo.branches) == ["main"]
        assert repo.gated == "auto"


def test_a_hub_that_asks_to_wait_is_waited_for_but_not_for_ever(
    hub: HubServer, start: Start, bundles: dict[str, Bundle]
) -> None:
    start()
    hub.retry_after_s = 1
    hub.faults.arm(Fault(5, "429"))
    began = time.monotonic()
    send(bundles["1.1.0"], QUICK)
    assert time.monotonic() - began >= 1
    start()
    hub.retry_after_s = 3600
    hub.faults.arm(Fault(5, "429"))
    began = time.monotonic()
    with pytest.raises(HubError, match="429"):
        send(bundles["1.1.0"], QUICK)
    assert time.monotonic() - began < 30


def test_patience_is_over_within_five_minutes() -> None:
    retry_policy = RetryPolicy()
    assert retry_policy.give_up_s + 2 * retry_policy.silence_s <= 300


@contextmanager
def publishing(
    bundle: Bundle, retry_policy: RetryPolicy = QUICK
) -> Iterator[tuple[int, Callable[[], object]]]:
    """A process that publishes as soon as it is told to, and ends with the exit code."""
    waits, goes = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.read(waits, 1)
            send(bundle, retry_policy)
            code = 0
        except SynthCTError as err:
            code = err.exit_code
            os.write(2, f"{err}\n".encode())
        except Exception:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    try:
        yield child, lambda: os.write(goes, b"!")
    finally:
        os.close(waits)
        os.close(goes)


def ended(child: int) -> int:
    """The exit code of a process."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def sent(hub: HubServer) -> Counter[str]:
    """How often each large file was sent."""
    return Counter(request for request in hub.faults.seen if request.startswith("PUT /lfs/"))


def check_kill(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], at: int, kind: str
) -> None:
    old, new = bundles["1.0.0"], bundles["1.1.0"]
    repo = start()
    with publishing(new) as (child, go):
        hub.faults.arm(Fault(at, kind, call=lambda: os.kill(child, signal.SIGKILL)))
        go()
        assert ended(child) == -signal.SIGKILL
    check_whole(repo, old, new)
    first = sent(hub)
    hub.faults.arm()
    send(new)
    again = first + sent(hub)
    assert sum(again.values()) - len(again) <= 1, "at most one shard is sent twice"
    assert len(again) == sum(item.is_large for item in new.items if item not in old.items)
    check_finished(repo, old, new)


@pytest.mark.long
def test_a_killed_publisher_leaves_main_whole_and_is_gone_on_with(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    for at in every(3, points):
        check_kill(hub, start, bundles, at, "kill" if at % 2 else "kill after")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kill", "kill after"])
def test_a_publisher_killed_at_any_request_leaves_main_whole_and_is_gone_on_with(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int, kind: str
) -> None:
    for at in range(1, points + 1):
        check_kill(hub, start, bundles, at, kind)


def check_race(hub: HubServer, start: Start, bundles: dict[str, Bundle], at: int) -> None:
    """Another publishes the same version with other content, all of it during one request."""
    first, second = bundles["1.1.0"], bundles["next"]
    repo = start()
    codes: list[int] = []
    calm = RetryPolicy(first_s=0.01)
    with publishing(first, calm) as (one, go), publishing(second) as (other, go_other):

        def overtake() -> None:
            go_other()
            codes.append(ended(other))

        hub.faults.arm(Fault(at, "pause", call=overtake))
        go()
        codes.insert(0, ended(one))
    assert sorted(codes) == [0, 6], (at, codes)
    winner = first if codes[0] == 0 else second
    assert is_whole(repo.at("main").tree, winner)
    assert is_whole(repo.at("1.1.0").tree, winner)
    hub.faults.arm()
    with pytest.raises(ConflictError, match="versions never change"):
        send(second if winner is first else first)


@pytest.mark.long
def test_of_two_publishers_one_wins_and_the_other_gets_an_error(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    for at in every(6, points):
        check_race(hub, start, bundles, at)


@pytest.mark.slow
def test_of_two_publishers_one_wins_wherever_they_meet(
    hub: HubServer, start: Start, bundles: dict[str, Bundle], points: int
) -> None:
    for at in range(1, points + 1):
        check_race(hub, start, bundles, at)


def test_a_branch_that_somebody_else_removes_meanwhile_is_no_failure(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    start()
    repo = HubRepo("dataset", REPO, TOKEN, "synthct publish ...", IMPATIENT)
    monkeypatch.setattr(repo, "refs", lambda: Refs({"build/same": "0" * 40}, {}))
    with repo.connection.open():
        repo.remove_branch("build/same")


def test_two_publishers_of_the_same_content_both_succeed(
    hub: HubServer, start: Start, bundles: dict[str, Bundle]
) -> None:
    repo = start()
    with publishing(bundles["1.1.0"]) as (one, go), publishing(bundles["1.1.0"]) as (two, go_too):
        go()
        go_too()
        assert [ended(one), ended(two)] == [0, 0]
    send(bundles["1.1.0"])
    check_finished(repo, bundles["1.0.0"], bundles["1.1.0"])


@pytest.mark.long
def test_a_reader_never_sees_a_part_of_a_version(
    hub: HubServer, start: Start, bundles: dict[str, Bundle]
) -> None:
    """Over real HTTP, while a version is published over another, many times."""
    sizes = {
        called: {item.path: item.size for item in bundles[called].items}
        for called in ("1.0.0", "1.1.0")
    }
    seen: Counter[str] = Counter()
    done = threading.Event()

    def read() -> None:
        with closing(
            http.client.HTTPConnection(hub.url.removeprefix("http://"), timeout=20)
        ) as line:
            while not done.is_set():
                line.request("GET", f"/api/datasets/{REPO}/tree/main?recursive=true", headers=AUTH)
                rows = json.loads(line.getresponse().read())
                found = {row["path"]: row["size"] for row in rows if row["type"] == "file"}
                found.pop(".gitattributes")
                seen[next((name for name, size in sizes.items() if size == found), "a part")] += 1

    start()
    reader = threading.Thread(target=read)
    reader.start()
    try:
        while reader.is_alive() and (sum(seen.values()) < 1000 or len(seen) < 2):
            start()
            send(bundles["1.1.0"])
    finally:
        done.set()
        reader.join()
    assert set(seen) == {"1.0.0", "1.1.0"}, seen
    assert sum(seen.values()) >= 1000
