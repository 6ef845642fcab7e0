"""Counting before the call: exact where it can be, bounded in time, corrected by what comes back."""

from __future__ import annotations

import builtins
import random
import time
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from negawatt.economics import count_sampling, counting_models
from negawatt.economics.count_corrections import MIN_CALLS, Corrections, Seen
from negawatt.economics.count_sampling import SampledCounter
from negawatt.economics.counting import BASES, BUDGET, Count, TokenCounter
from negawatt.economics.counting_models import Encodings
from negawatt.economics.tokenizer_files import TokenizerFiles
from negawatt.economics.tokens import estimate_request_tokens, tokens_in
from negawatt.errors import ConfigError
from negawatt.protocol import Contract, Prompt

ENCODINGS = Encodings()
O200K = ENCODINGS.tokenizer("o200k_base")
CL100K = ENCODINGS.tokenizer("cl100k_base")
COUNTER = TokenCounter()
LAWS = settings(derandomize=True, deadline=None, max_examples=100)
HELLO = [{"role": "user", "content": "Hello there, how is the weather in Paris?"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PROSE = "The order was sent to our office in the old town last week, but nothing has come of it since. "


def prose(characters: int, seed: int = 1) -> str:
    rng = random.Random(seed)
    words = (PROSE + 'then {"id": 42, "ok": true} and 17.5 % more; naïve façade — done.\n').split(" ")
    text = ""
    while len(text) < characters:
        text += rng.choice(words) + " "
    return text[:characters]


def asks(text: str) -> Prompt:
    return Prompt(messages=[{"role": "user", "content": text}])


# The tokenizers


@pytest.mark.parametrize(
    ("tokenize", "text", "tokens"),
    [(O200K, "hello world", 2), (CL100K, "hello world", 2), (O200K, "tiktoken is great!", 6),
     (CL100K, "tiktoken is great!", 6), (O200K, "お誕生日おめでとう", 8), (CL100K, "お誕生日おめでとう", 9),
     (CL100K, "antidisestablishmentarianism", 6)],
)  # fmt: skip
def test_the_tokenizers_are_openais(tokenize, text: str, tokens: int):
    """The counts that OpenAI's cookbook prints for its examples (the one for o200k_base counted with tiktoken)."""
    assert tokenize(text) == tokens


def test_the_tables_are_the_published_ones(monkeypatch: pytest.MonkeyPatch):
    """A table whose sum is not the one that tiktoken expects is refused, and its models are estimated."""
    own = Encodings()
    table = own._table.encodings
    table["o200k_base"] = counting_models._Encoding(
        file="cl100k_base.tiktoken.gz", sha256=table["o200k_base"].sha256, pattern=(".",)
    )
    assert own.tokenizer("o200k_base") is None


@pytest.mark.parametrize(
    ("model", "encoding", "frame"),
    [
        ("gpt-4o", "o200k_base", "published"),
        ("gpt-4o-mini-2024-07-18", "o200k_base", "published"),
        ("openai/gpt-4o-mini", "o200k_base", "published"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x1", "o200k_base", "published"),
        ("gpt-4.1-nano", "o200k_base", "assumed"),
        ("gpt-5.1", "o200k_base", "assumed"),
        ("o1", "o200k_base", "assumed"),
        ("o3-mini", "o200k_base", "assumed"),
        ("o4-mini", "o200k_base", "assumed"),
        ("gpt-4", "cl100k_base", "published"),
        ("gpt-4-turbo-2024-04-09", "cl100k_base", "published"),
        ("GPT-3.5-turbo-0125", "cl100k_base", "published"),
        ("gpt-35-turbo", "cl100k_base", "published"),
        ("text-embedding-3-small", "cl100k_base", "published"),
        ("openai/gpt-oss-120b", "o200k_base", "assumed"),
    ],
)
def test_each_model_has_its_tokenizer(model: str, encoding: str, frame: str):
    """OpenAI's families, with and without a publisher, dates and fine-tuning around the name."""
    family = ENCODINGS.family(model)
    assert family is not None
    assert (family.encoding, family.frame) == (encoding, frame)


@pytest.mark.parametrize("model", ["claude-sonnet-4-5", "llama-3.1-70b", "o1x", "gpt-2", "omni", "", "mistral-large"])
def test_other_models_have_none(model: str):
    """A name that only resembles one of OpenAI's is not counted by their tokenizer."""
    assert ENCODINGS.family(model) is None


def test_the_names_that_callers_make_up_are_not_kept_for_ever():
    """A thousand times as many model names as are kept: memory is bounded."""
    own = Encodings()
    for i in range(counting_models._MOST_NAMES + 10):
        own.family(f"made-up-{i}")
    assert len(own._families) <= counting_models._MOST_NAMES


# Requests


def test_a_plain_chat_request_is_counted_exactly():
    """The text under the model's tokenizer, 3 tokens a message, 1 a name, and 3 before the answer."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "name": "ada", "content": "Hello"}]
    texts = ["system", "Be brief.", "user", "ada", "Hello"]
    found = TokenCounter().count("gpt-4o", Prompt(messages=messages))
    assert found == Count(sum(map(O200K, texts)) + 2 * 3 + 1 + 3, "exact")
    assert found.tokens == 17


def test_texts_and_token_ids_have_no_frame():
    """Embeddings: the texts' own tokens, and those that the caller counted."""
    for model in ("text-embedding-3-small", "gpt-5"):
        assert TokenCounter().count(model, Prompt(texts=["hello world", "a"], tokens=7)) == (10, "exact", None)


@pytest.mark.parametrize(
    "prompt",
    [
        Prompt(messages=HELLO, tools=[TOOL]),
        Prompt(messages=[{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]),
        Prompt(messages=[{"role": "tool", "tool_call_id": "1", "content": "4"}]),
    ],
)
def test_what_stands_around_tools_is_not_published(prompt: Prompt):
    """With tools, calls of them or their results, the text is exact and the frame assumed: basis ``tokenizer``."""
    assert TokenCounter().count("gpt-4o", prompt).basis == "tokenizer"


def test_a_schema_that_is_asked_for_is_counted():
    """`response_format` goes to the model as well."""
    counter = TokenCounter()
    plain = counter.count("gpt-4o", Prompt(messages=HELLO))
    asked = counter.count("gpt-4o", Prompt(messages=HELLO), Contract({"type": "object", "properties": {"a": {}}}))
    assert (plain.basis, asked.basis) == ("exact", "tokenizer")
    assert asked.tokens > plain.tokens + 5
    assert counter.count("gpt-4o", Prompt(messages=HELLO), Contract(None)) == plain


@pytest.mark.parametrize("part", [PICTURE, {"type": "input_audio", "input_audio": {}}, {"type": "file"}, 3, None])
def test_what_is_no_text_is_only_estimated_and_teaches_nothing(part):
    """Pictures, sound, files and what we do not know: nobody can count them here."""
    counter = TokenCounter()
    prompt = Prompt(messages=[{"role": "user", "content": [{"type": "text", "text": "Look."}, part]}])
    for model in ("gpt-4o", "claude"):
        found = counter.count(model, prompt)
        assert found.basis == "estimated" and found.raw is None
        for _ in range(50):
            counter.learn(model, found, 100_000)
        assert counter.count(model, prompt) == found


def test_other_models_are_estimated():
    """Without a tokenizer the count is the estimator's, and says so."""
    found = TokenCounter().count("claude-sonnet-4-5", Prompt(messages=HELLO, tools=[TOOL]))
    assert found.basis == "estimated"
    assert found.tokens == pytest.approx(estimate_request_tokens(HELLO, [TOOL]), abs=3)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["role", "name", "content", "tool_calls", "function", "arguments", "type", "text", "refusal",
                         "image_url", "detail"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(messages=_JSON, tools=_JSON, texts=st.lists(st.text(max_size=50), max_size=3))
@LAWS
def test_no_request_makes_it_raise(messages, tools, texts):
    """Whatever callers send is counted as something, under a known basis."""
    for model in ("gpt-4o", "gpt-4", "claude"):
        found = COUNTER.count(model, Prompt(messages=messages, tools=tools, texts=texts))
        assert found.tokens >= 0 and found.basis in BASES


def test_half_a_surrogate_pair_is_counted():
    """JSON may carry one; UTF-8 may not."""
    assert TokenCounter().count("gpt-4o", asks("\ud83d broken " * 3)).tokens > 5


# Long prompts


@given(
    text=st.text(alphabet=st.sampled_from(list("aZ9 \n\t.!'é日—\u00a0\u3000s")), max_size=300),
    place=st.integers(0, 300),
)
@LAWS
def test_no_token_goes_from_a_character_to_a_space(text: str, place: int):
    """Cut before a space that follows no other, and the parts sum up to the whole: in both tokenizers."""
    at = text.find(" ", place)
    if at > 0 and not text[at - 1].isspace():
        for tokenize in (O200K, CL100K):
            assert tokenize(text[:at]) + tokenize(text[at:]) == tokenize(text)


@given(
    text=st.text(alphabet=st.sampled_from(list("ab  \n.日")), min_size=1, max_size=3000), chunks=st.integers(2, 40)
)  # fmt: skip
@LAWS
def test_the_chunks_are_the_text(text: str, chunks: int):
    """Every character is in exactly one chunk, and the visits reach every chunk once."""
    part = count_sampling._Partly(len(text), 128)
    cuts = [count_sampling._cut(text, k, part.chunks)[0] for k in range(part.chunks + 1)]
    assert cuts == sorted(cuts) and cuts[0] == 0 and cuts[-1] == len(text)
    assert {part.stride * i % part.chunks for i in range(1, part.chunks + 1)} == set(range(part.chunks))


def test_a_long_prompt_is_sampled_then_exact():
    """The first call reads a part of it and comes near; calls that bring it again read on, until it is exact."""
    counter, text = TokenCounter(), prose(30_000)
    truth = O200K(text) + O200K("user") + 6
    first = counter.count("gpt-4o", asks(text))
    assert first.basis == "sampled"
    assert first.tokens == pytest.approx(truth, rel=0.15)
    for _ in range(100):
        last = counter.count("gpt-4o", asks("".join([text])))
    assert last == (truth, "exact", None)


def test_a_call_tokenises_no_more_than_its_budget():
    """However long and however many the texts, new or half known."""
    read = []
    counter = SampledCounter(lambda text: read.append(len(text)) or O200K(text), budget=1000, size=tokens_in)
    for texts in ([prose(100_000)], [prose(100, i) for i in range(500)], [prose(3000, i) for i in range(40)]):
        for _ in range(3):
            read.clear()
            counter.count(texts)
            assert sum(read) <= 1000 * 1.25  # chunks end at spaces


def test_many_short_texts_are_near_too():
    """A conversation of hundreds of new messages is neither skipped nor read in full."""
    counter = TokenCounter()
    messages = [{"role": "user", "content": prose(300, i)} for i in range(200)]
    truth = TokenCounter(budget=None).count("gpt-4o", Prompt(messages=messages))
    found = counter.count("gpt-4o", Prompt(messages=messages))
    assert (truth.basis, found.basis) == ("exact", "sampled")
    assert found.tokens == pytest.approx(truth.tokens, rel=0.2)
    for _ in range(60):
        found = counter.count("gpt-4o", Prompt(messages=messages))
    assert found == truth


@pytest.mark.parametrize(
    "text", ["日本語の文章です。" * 2000, " " * 20_000, "A" * 20_000, "\n \t" * 9000, "a\u0301" * 9000]
)
def test_a_text_without_places_to_cut_is_never_called_exact(text: str):
    """Its chunks were cut through tokens: near, and still ``sampled`` when all of it has been read."""
    counter = TokenCounter()
    for _ in range(200):
        found = counter.count("gpt-4o", asks(text))
    assert found.basis == "sampled"
    assert found.tokens == pytest.approx(O200K(text), rel=0.5)


def test_the_time_of_a_call_does_not_grow_with_the_prompt():
    """A prompt a hundred times as long takes no more than some times as long to count."""

    def seconds(characters: int) -> float:
        best = 1.0
        for i in range(5):
            counter = TokenCounter()
            counter.warm("gpt-4o")
            prompt = asks(prose(20_000, i) * (characters // 20_000))
            started = time.perf_counter()
            counter.count("gpt-4o", prompt)
            best = min(best, time.perf_counter() - started)
        return best

    assert seconds(2_000_000) < 30 * seconds(20_000)


def test_what_is_remembered_is_bounded():
    """Only counts are kept, of a bounded number of texts."""
    counter = SampledCounter(lambda _: 1.0, budget=None)
    for i in range(count_sampling._MOST_KEPT + 100):
        counter.count([f"text {i}"])
    assert len(counter._known) == count_sampling._MOST_KEPT


# Without the library, and in the background


def test_without_tiktoken_the_estimator_counts(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    """The library cannot be imported: one warning, and basis ``estimated``."""
    counting_models._open.cache_clear()
    real = builtins.__import__

    def without(name, *rest, **named):
        if name == "tiktoken":
            raise ImportError("no tiktoken here")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    counter = TokenCounter()
    assert [counter.count("gpt-4o", Prompt(messages=HELLO)).basis for _ in range(3)] == ["estimated"] * 3
    assert len([r for r in caplog.records if "tiktoken" in r.message]) == 1


def test_a_tokenizer_is_read_in_the_background():
    """Until it is there calls are estimated at once; then they are exact."""
    counting_models._open.cache_clear()
    counter = TokenCounter(background=True)
    started = time.perf_counter()
    first = counter.count("gpt-4o", Prompt(messages=HELLO))
    assert time.perf_counter() - started < 0.2
    assert first.basis == "estimated"
    counter.wait()
    assert counter.count("gpt-4o", Prompt(messages=HELLO)).basis == "exact"


# Corrections


def test_a_model_is_corrected_by_what_its_provider_returns():
    """A provider that counts 20 % more and puts 30 tokens around each call: after some calls we count as it does."""
    counter = TokenCounter()
    for i in range(60):
        prompt = asks(prose(200 + 97 * i, i))
        counted = counter.count("claude", prompt)
        counter.learn("claude", counted, round(1.2 * counted.raw + 30))
    found = counter.count("claude", asks(prose(3000, 99)))
    assert found.basis == "corrected"
    assert found.tokens == pytest.approx(1.2 * found.raw + 30, rel=0.02)
    assert counter.count("other", asks("Hello")).basis == "estimated"


def test_an_answer_is_counted_without_what_stands_around_calls():
    """The provider's constant belongs to its input; its tokenizer's slope to both. Nothing long is tokenised."""
    counter = TokenCounter()
    for i in range(60):
        counted = counter.count("claude", asks(prose(200 + 97 * i, i)))
        counter.learn("claude", counted, round(1.2 * counted.raw + 300))
    found = counter.count_text("claude", prose(400))
    assert found.basis == "corrected"
    assert found.tokens == pytest.approx(1.2 * found.raw, rel=0.05)
    assert counter.count_text("gpt-5", "hello world") == (2, "exact", None)
    assert counter.count_text("gpt-4o", prose(10 * BUDGET)).basis == "estimated"
    assert counter.count_text("gpt-4o", "") == (0, "exact", None)


def test_few_calls_correct_nothing():
    """A correction waits for its first calls."""
    corrections = Corrections()
    for _ in range(MIN_CALLS - 1):
        corrections.learn("m", "estimated", 100, 200)
    assert corrections.corrected("m", "estimated", 100) is None
    corrections.learn("m", "estimated", 100, 200)
    assert 120 < corrections.corrected("m", "estimated", 100) < 210


def test_an_exact_count_is_left_alone():
    """It has nothing to learn from; a provider that counts otherwise shows in the errors."""
    counter = TokenCounter()
    exact = counter.count("gpt-4o", Prompt(messages=HELLO))
    for _ in range(50):
        counter.learn("gpt-4o", exact, 500)
    assert counter.count("gpt-4o", Prompt(messages=HELLO)) == exact


def test_an_assumed_frame_is_learned():
    """A model whose frame is not published: what its provider adds to each call is added."""
    counter = TokenCounter()
    for i in range(40):
        counted = counter.count("gpt-5", asks(prose(100 + 50 * i, i)))
        counter.learn("gpt-5", counted, counted.raw + 12)
    found = counter.count("gpt-5", asks(prose(1000, 77)))
    assert found.basis == "tokenizer"
    assert found.tokens - found.raw == pytest.approx(12, abs=3)


def test_odd_calls_do_no_harm():
    """One call in ten with a picture or a file that nobody told us of: the others are still counted well."""
    rng, corrections = random.Random(3), Corrections()
    for _ in range(400):
        raw = rng.randint(50, 5000)
        measured = 1.1 * raw + 10 + (rng.randint(2000, 50_000) if rng.random() < 0.1 else 0)
        corrections.learn("m", "estimated", raw, round(measured))
    for raw in (300, 1000, 4000):
        assert corrections.corrected("m", "estimated", raw) == pytest.approx(1.1 * raw + 10, rel=0.1)


def test_a_lasting_change_is_followed():
    """A provider changes its tokenizer: a few hundred calls later we count as it does now."""
    rng, corrections = random.Random(4), Corrections()
    for slope in (1.0, 1.35):
        for _ in range(300):
            raw = rng.randint(50, 5000)
            corrections.learn("m", "estimated", raw, round(slope * raw * rng.gauss(1, 0.03)))
    assert corrections.corrected("m", "estimated", 2000) == pytest.approx(2700, rel=0.05)


_CALLS = st.lists(st.tuples(st.integers(-5, 10**7), st.integers(-5, 10**12)), max_size=200)


@given(calls=_CALLS, raw=st.integers(0, 10**6))
@LAWS
def test_no_history_makes_a_correction_wild(calls, raw):
    """Whatever was measured: the correction is finite, not negative, and within its bounds."""
    corrections = Corrections()
    for counted, measured in calls:
        corrections.learn("m", "estimated", counted, measured)
    found = corrections.corrected("m", "estimated", raw)
    assert found is None or 0 <= found <= 4 * raw + 2000


def test_the_corrections_are_those_of_the_ledger():
    """Learned call by call or read back from the rows: the same."""
    live, rows = Corrections(), []
    for i in range(30):
        rows.append(Seen("m", ("estimated", "corrected")[i > 5], 100 + i, 130 + i))
        live.learn(*rows[-1])
    again = Corrections.from_rows(rows)
    assert again.corrected("m", "estimated", 500) == live.corrected("m", "estimated", 500) is not None


def test_the_models_that_are_remembered_are_bounded():
    """Beyond the bound the least recently used goes."""
    corrections = Corrections()
    for i in range(1100):
        for _ in range(MIN_CALLS):
            corrections.learn(f"m{i}", "estimated", 100, 120)
    assert len(corrections._lines) == 1024
    assert corrections.corrected("m0", "estimated", 100) is None
    assert corrections.corrected("m1099", "estimated", 100) is not None


# The user's tokenizer.json


@pytest.fixture
def words_file(tmp_path):
    """A tokenizer.json that knows words: one token each."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs negawatt[tokenizers]")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(4)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_the_users_tokenizer_counts(words_file):
    """Its models, and no others; neither padded nor cut off, whatever the file says."""
    files = TokenizerFiles([SimpleNamespace(models="house-*", file=str(words_file))])
    counter = TokenCounter(files)
    found = counter.count("acme/House-7B", Prompt(texts=["one two three four five six"]))
    assert found == Count(6, "tokenizer", 6)
    assert counter.count("other", Prompt(texts=["one two"])).basis == "estimated"
    assert counter.count("house-7b", Prompt(texts=["\ud83d alone"])).tokens == 2


def test_the_users_tokenizer_comes_before_ours(words_file):
    """A file for one of OpenAI's names holds: the user knows what runs there."""
    files = TokenizerFiles([SimpleNamespace(models=("x", "gpt-4o*"), file=str(words_file))])
    assert TokenCounter(files).count("gpt-4o", Prompt(texts=["unbelievably long"])) == (2, "tokenizer", 2)


def test_the_users_tokenizer_samples_long_prompts(words_file):
    """The same bound for it."""
    counter = TokenCounter(TokenizerFiles([SimpleNamespace(models="house", file=str(words_file))]))
    text = prose(10 * BUDGET)
    found = counter.count("house", Prompt(texts=[text]))
    assert found.basis == "sampled"
    assert found.tokens == pytest.approx(len(text.split()), rel=0.15)


def test_a_bad_tokenizer_file_is_refused_by_its_field(tmp_path):
    """Not there, not a tokenizer, no pattern: the error names the field and the file."""
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    with pytest.raises(ConfigError, match=r"economics\.tokenizers\[0\]\.file: .*none\.json: there is no such file"):
        TokenizerFiles([SimpleNamespace(models="a", file=str(tmp_path / "none.json"))])
    with pytest.raises(ConfigError, match=r"economics\.tokenizers\[0\]\.models"):
        TokenizerFiles([SimpleNamespace(models="", file=str(bad))])
    pytest.importorskip("tokenizers", reason="needs negawatt[tokenizers]")
    with pytest.raises(ConfigError, match=r"economics\.tokenizers\[0\]\.file: .*bad\.json: not a tokenizer"):
        TokenizerFiles([SimpleNamespace(models="a", file=str(bad))])
