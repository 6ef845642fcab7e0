"""The policy of every cache: for how long, for whom, and what the caller may forbid."""

from __future__ import annotations

from typing import Any

import pytest
from worlds import bare_call, chat, virtual, world

from negawatt.call import Call
from negawatt.caller import Hints, Scope
from negawatt.config import ExactCache, RequestClass, SemanticCache
from negawatt.errors import InvalidRequest
from negawatt.recall.policy import (
    OWN_TAGS,
    PERSONAL_TTL_S,
    SENSITIVE_TTL_S,
    CachePolicy,
    Plan,
    callers_tags,
    tags_of,
)

DAY = 86_400.0


def a_call(cache_control: str | None = None, *, request: Any = None, **fields: Any) -> Call:
    return bare_call(request, **fields).with_(hints=Hints(cache_control=cache_control))


def plan_of(call: Call | None = None, *, settings: Any = None, **policy: Any) -> Plan:
    """Return the plan for *call* by a class of its own that has *policy*."""
    classes = {"c": RequestClass(**policy)}
    call = (call or a_call()).with_(request_class="c")
    return CachePolicy(settings or ExactCache(), classes).plan(call)


# -- for how long ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "usual", "ttl"),
    [
        ({}, DAY, DAY), ({}, 5.0, 5.0), ({"ttl_s": 7.0}, DAY, 7.0), ({"ttl_s": 9e9}, DAY, 9e9),
        ({"sensitive": True}, DAY, SENSITIVE_TTL_S), ({"sensitive": True}, 5.0, 5.0),
        ({"personal": True}, DAY, PERSONAL_TTL_S), ({"personal": True}, 5.0, 5.0),
        ({"personal": True, "sensitive": True}, DAY, SENSITIVE_TTL_S),
        ({"personal": True, "ttl_s": 7.0}, DAY, 7.0), ({"sensitive": True, "ttl_s": 9e9}, DAY, 9e9),
    ],
)  # fmt: skip
def test_how_long_an_answer_lives(policy: dict[str, Any], usual: float, ttl: float):
    """As the class says; else as the lever says, but shorter where it is personal, and shortest where it may harm."""
    call = a_call(scope=Scope(user="u"))
    assert plan_of(call, settings=ExactCache(ttl_s=usual), **policy).ttl_s == ttl
    assert SENSITIVE_TTL_S < PERSONAL_TTL_S < DAY


def test_a_class_that_is_not_configured_lives_as_the_lever_says():
    """And nothing stale is given for it."""
    plan = CachePolicy(SemanticCache(ttl_s=3.0), {}).plan(a_call())
    assert (plan.read, plan.write, plan.ttl_s, plan.stale_s, plan.reason) == (True, True, 3.0, 0.0, None)


def test_fresh_stale_and_old():
    """Up to its lifetime fresh; then stale where the class allows it; then old. The caller's max-age cuts both."""
    ages = (0.0, 10.0, 10.1, 15.0, 15.1)
    usual = Plan(ttl_s=10.0, stale_s=5.0)
    assert [usual.state(age) for age in ages] == ["fresh", "fresh", "stale", "stale", "old"]
    assert [Plan(ttl_s=10.0).state(age) for age in ages] == ["fresh", "fresh", "old", "old", "old"]
    strict = Plan(ttl_s=10.0, stale_s=5.0, max_age_s=9.0)
    assert [strict.state(age) for age in (9.0, 9.1, 12.0)] == ["fresh", "old", "old"]
    patient = Plan(ttl_s=10.0, stale_s=5.0, max_age_s=12.0)
    assert [patient.state(age) for age in (11.0, 12.1)] == ["stale", "old"]


def test_a_class_says_whether_stale_answers_are_given():
    """`stale_s`, beyond the lifetime."""
    assert plan_of(stale_s=30.0, ttl_s=10.0).state(35.0) == "stale"


# -- for whom --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "scope", "reason"),
    [
        ({"personal": True}, {}, "the class is personal and the call names no user"),
        ({"personal": True}, {"user": "u"}, None),
        ({"needs": ("permissions",)}, {}, "the class needs permissions and the call has none"),
        ({"needs": ("permissions",)}, {"permissions": "p"}, None),
        ({"needs": ("corpus_version",)}, {}, "the class needs a corpus version and the call has none"),
        ({"needs": ("corpus_version",)}, {"corpus_version": "1"}, None),
        ({"needs": ("prompt_version",)}, {}, "the class needs a prompt version and the call has none"),
        ({"needs": ("tool_digests",)}, {}, "the class needs digests of tool results and the call has none"),
        ({"needs": ("tool_digests",)}, {"tool_digests": "d"}, None),
        ({"cache": "never"}, {}, "not for this class"),
    ],
)  # fmt: skip
def test_without_the_scope_that_a_class_needs_nothing_is_read_or_kept(
    policy: dict[str, Any], scope: dict[str, Any], reason: str | None
):
    """And the plan says what is missing."""
    plan = plan_of(a_call(scope=Scope(**scope)), **policy)
    assert (plan.read, plan.write, plan.reason) == (reason is None, reason is None, reason)


@pytest.mark.parametrize(
    ("when", "policy", "temperature", "allowed"),
    [
        ("deterministic", None, 0, True), ("deterministic", None, 0.7, False), ("deterministic", None, None, False),
        ("always", None, 0.7, True), ("never", None, 0, False), ("never", "always", 0.7, True),
        ("always", "deterministic", 0.7, False), ("always", "never", 0, False),
    ],
)  # fmt: skip
def test_which_calls_are_cached(when: str, policy: str | None, temperature: float | None, allowed: bool):
    """Those of temperature 0, unless lever or class say otherwise; the class has the last word."""
    call = a_call(request=chat(temperature=temperature))
    assert plan_of(call, settings=ExactCache(when=when), cache=policy).read is allowed


@pytest.mark.parametrize(
    ("access", "read", "write"),
    [("read_write", True, True), ("read_only", True, False), ("write_only", False, True)],
)
def test_a_lever_may_only_read_or_only_write(access: str, read: bool, write: bool):
    """As its access says; the caller can take away from it, and add nothing."""
    settings = ExactCache(access=access)
    plan = plan_of(settings=settings)
    assert (plan.read, plan.write) == (read, write)
    controlled = plan_of(a_call("max-age=60"), settings=settings)
    assert (controlled.read, controlled.write) == (read, write)
    refreshed = plan_of(a_call("no-cache"), settings=settings)
    assert (refreshed.read, refreshed.write) == (False, write)


# -- what the caller says --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "read", "write", "max_age"),
    [
        ("no-store", False, False, None), ("no-cache", False, True, None), ("NO-CACHE", False, True, None),
        ("max-age=0", False, True, 0.0), ("max-age=60", True, True, 60.0), ("Max-Age = 60", True, True, 60.0),
        ('max-age="60"', True, True, 60.0), ("max-age=60, no-store", False, False, 60.0),
        ("no-cache , max-age=5", False, True, 5.0), (", ,", True, True, None),
        ("private, no-transform, max-stale=5", True, True, None), ("max-age=99999999999999999999", True, True, 1e20),
    ],
)  # fmt: skip
def test_the_callers_cache_control(said: str, read: bool, write: bool, max_age: float | None):
    """RFC 9111: no-store neither reads nor stores, no-cache and max-age=0 ask anew; what does not apply is ignored."""
    plan = plan_of(a_call(said))
    assert (plan.read, plan.write, plan.max_age_s) == (read, write, max_age)
    if not read:
        assert plan.reason is not None and plan.reason.startswith("the caller said ")


@pytest.mark.parametrize(
    "said", ["max-age", "max-age=", "max-age=soon", "max-age=-1", "max-age=1.5", "no-cache, max-age=x"]
)
def test_a_max_age_that_is_no_number_is_refused(said: str):
    """By the name of the header: half a wish would be worse than none."""
    with pytest.raises(InvalidRequest, match="cache-control: max-age needs a number of seconds") as error:
        plan_of(a_call(said))
    assert error.value.param == "cache-control"


def test_what_one_caller_says_holds_for_their_call_only():
    """The next call of the class has the usual plan."""
    policy = CachePolicy(ExactCache(), {})
    assert policy.plan(a_call()).read
    assert not policy.plan(a_call("no-store")).read
    assert policy.plan(a_call()) == Plan(read=True, write=True, ttl_s=DAY)


def test_a_class_may_have_a_limit_of_bytes():
    """None where it has none."""
    policy = CachePolicy(ExactCache(), {"small": RequestClass(max_cache_bytes=10)})
    assert [policy.max_bytes(name) for name in ("small", "default")] == [10, None]


# -- tags ------------------------------------------------------------------------------------------------------


def tagged(text: str | None, **scope: Any) -> tuple[str, ...]:
    return tags_of(bare_call(scope=Scope(**scope)).with_(request_class="faq", hints=Hints(cache_tags=text)))


def test_an_entry_has_our_tags_and_the_callers():
    """Tenant, layer, class and model always; versions where they are known; the caller's once each, in their order."""
    assert tagged(None) == ("tenant=default", "layer=answers", "class=faq", "model=gpt-4o-mini")
    assert tagged("document=42, region=eu,document=42 ,", tenant="t", corpus_version="7", prompt_version="p") == (
        "tenant=t", "layer=answers", "corpus_version=7", "prompt_version=p", "class=faq", "model=gpt-4o-mini",
        "document=42", "region=eu",
    )  # fmt: skip


@pytest.mark.parametrize("name", OWN_TAGS)
def test_nobody_may_give_our_own_tags(name: str):
    """Else a caller could have another tenant's entries deleted with their own, or hide from deletion."""
    with pytest.raises(InvalidRequest, match=f"{name}= is a tag that negawatt sets itself") as error:
        tagged(f"document=1, {name}=other")
    assert error.value.param == "x-negawatt-cache-tags"


@pytest.mark.parametrize(
    "bad", ["document", "=1", "document=", "a b=1", "a=b=c", "a= 1", f"{'n' * 65}=1", f"a={'v' * 129}", "ä/ö=1"]
)
def test_a_bad_tag_is_named(bad: str):
    """With the header that it stands in, and an example of a good one."""
    with pytest.raises(InvalidRequest, match="is not a tag such as document=42") as error:
        tagged(f"good=1, {bad}")
    assert repr(bad[:80]) in error.value.message
    assert error.value.param == "x-negawatt-cache-tags"


@virtual
async def test_a_call_with_a_bad_tag_is_refused_before_anybody_is_asked():
    """Its caller hears of it, whether or not the answer would have been kept."""
    async with world() as w:
        for temperature in (0, 1):
            with pytest.raises(InvalidRequest, match="x-negawatt-cache-tags: 'nonsense' is not a tag"):
                await w.ask(chat(temperature=temperature), cache_tags="nonsense")
        assert w.calls == 0
        assert [row.ending for row in w.rows()] == ["refused", "refused"]


def test_there_are_at_most_16_tags():
    """A seventeenth is refused, and how many there were is said; repeats count once."""
    many = ",".join(f"n{i}=1" for i in range(16))
    assert len(tagged(f"{many},n0=1")) == 4 + 16
    with pytest.raises(InvalidRequest, match="at most 16 tags, got 17"):
        tagged(f"{many},n16=1")


def test_tags_from_elsewhere_name_where_they_stand():
    """The same rules for a parameter or a header."""
    assert callers_tags(None) == ()
    with pytest.raises(InvalidRequest, match=r"^tags: 'x' is not a tag") as error:
        callers_tags("x", "tags")
    assert error.value.param == "tags"
