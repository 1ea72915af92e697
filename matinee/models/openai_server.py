"""An OpenAI-compatible server (vLLM, `ray.serve.llm`, llama.cpp, TGI) as an engine of the enhancer.

The server batches, and decides on weights and precision. Here are the deadline of each request, its retries, and the reading of answers
that may be anything. Does not know items, and does not judge what was written: that is `enhancer`. `ServerBackend.generate` can be called
by several threads at once.
"""

import hashlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_before_delay, wait_random_exponential

from matinee.errors import ModelError, ModelServerError
from matinee.models.backends import Completion, GenerationOptions
from matinee.settings.addresses import IDLE_S, is_inside
from matinee.settings.models import EnhancerSettings

_MAX_BYTES = 4_000_000
"""Of one answer: a list of models can be long, a description can't."""
_LONGEST_PAUSE_S = 10.0
_BYTES_PER_TOKEN = 3
"""Few enough for any language: English has about 4.5 of them, Chinese one character of 3."""

log = logging.getLogger(__name__)


class _FailureError(Exception):
    """A request that came to nothing. `passing`: the same request may do better later, or after `retry_after_s`."""

    def __init__(self, reason: str, message: str, *, passing: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.reason, self.passing, self.retry_after_s = reason, passing, retry_after_s


class _Tokens:
    """What the enhancer asks of a tokenizer. The server's is out of reach: counts are estimates, and it applies its own chat template."""

    bos_token = None

    def __init__(self, *, chat: bool) -> None:
        self.chat_template = "the server's" if chat else None

    def __call__(self, text: str) -> "_Ids":
        return _Ids(range(-(-len(text.encode()) // _BYTES_PER_TOKEN)))

    def apply_chat_template(self, conversation: list[dict[str, str]], **_: object) -> str:
        return conversation[0]["content"]


class _Ids:
    def __init__(self, input_ids: Sequence[int]) -> None:
        self.input_ids = input_ids


def _at(answer: object, *path: str | int) -> object:
    """What stands at a path in an answer that may be anything; None for a key that an object lacks. Raises `TypeError` or `IndexError`."""
    for step in path:
        if isinstance(answer, dict) and isinstance(step, str):
            answer = answer.get(step)
        elif isinstance(answer, list) and isinstance(step, int):
            answer = answer[step]
        else:
            raise TypeError
    return answer


def digests(settings: EnhancerSettings) -> tuple[str, str | None]:
    """Of model and adapter. A server does not tell the digests of its weights: names, revision and form of the prompt stand for them."""
    known = {"engine": settings.engine, "revision": settings.revision, "chat": settings.chat}
    model = hashlib.sha256(json.dumps(known | {"model": settings.model}).encode()).hexdigest()
    adapter = hashlib.sha256(json.dumps(known | {"adapter": settings.adapter}).encode()).hexdigest() if settings.adapter else None
    return model, adapter


class ServerBackend:
    """The model, or the adapter, that a server has under a name."""

    precision = "server"
    device = "server"

    def __init__(self, settings: EnhancerSettings, *, count_failure: Callable[[str], None] = lambda reason: None) -> None:
        """`count_failure` gets the reason of each request that failed, those that were sent again included."""
        assert settings.url is not None, "engine openai has one"  # noqa: S101
        self.tokenizer = _Tokens(chat=settings.chat)
        self._settings, self._url, self._count_failure = settings, settings.url.rstrip("/"), count_failure
        self._name = settings.adapter or settings.model
        self._key = settings.api_key.get_secret_value() if settings.api_key else None
        self._checked, self._checking = False, threading.Lock()
        self.trouble: str | None = None
        """What went wrong, until a request is answered well."""
        most = settings.batch_size
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=IDLE_S)
        if self._key and not (self._key.isascii() and self._key.isprintable()):
            raise ModelError("enhancer.api_key has characters that no key has: copy it again")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        try:
            # With a transport of its own a client takes no proxy from the environment.
            transport = httpx.HTTPTransport(limits=limits) if is_inside(self._url) else None
            self._client = httpx.Client(headers=headers, transport=transport, limits=limits)
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            raise ModelError(f"enhancer.url {self._url} can't be reached through the environment's proxy: {error}") from None

        # Closed with the last reference: no caller has to remember it.
        weakref.finalize(self, self._client.close)

    def check(self, deadline: float | None = None) -> None:
        """Whether the server has the model and continues a prompt. Once it did, it is not asked again.

        Raises `ModelServerError` where it is not known by `deadline` (`time.monotonic()`), and `ModelError` where the settings and the
        server contradict each other.
        """
        if self._checked:
            return
        if not self._checking.acquire(timeout=max(0.0, self._left(deadline))):
            raise ModelServerError(f"the enhancer's server {self._url} has not answered the check of its models yet")
        try:
            if not self._checked:
                self._check(deadline)
                self._checked = True
        except _FailureError as failure:
            raise self._explain(failure) from None
        finally:
            self._checking.release()

    def _left(self, deadline: float | None) -> float:
        """Seconds that a request may take."""
        return self._settings.timeout_s if deadline is None else min(self._settings.timeout_s, deadline - time.monotonic())

    def _check(self, deadline: float | None) -> None:
        listed = self._ask("GET", "/models", None, deadline)
        try:
            models = _at(listed, "data")
            if not isinstance(models, list):
                raise TypeError
            names = [str(model["id"]) for model in models]
        except (KeyError, TypeError):
            raise self._failure("nonsense", f"its list of models has another form ({json.dumps(listed)[:200]})", passing=True) from None
        for setting, name in (("model", self._settings.model), ("adapter", self._settings.adapter)):
            if name is not None and name not in names:
                raise ModelError(
                    f"{self._url} has no model {name!r} (enhancer.{setting}); it has {', '.join(names) or 'none'}: set one of these names, "
                    "or start the server with this one"
                )
        self._write("Title:", GenerationOptions(max_new_tokens=1, deadline=deadline))

    def generate(self, prompts: Sequence[str], options: GenerationOptions) -> list[Completion]:
        """A continuation of each prompt, at most `enhancer.batch_size` under way.

        One that the server rejects, or has not written by the deadline, is empty. Raises `ModelServerError` once a prompt was not answered
        in any try, and `ModelError` where the server refuses the key or no longer has the model.
        """
        self.check(options.deadline)
        if len(prompts) == 1:
            return [self._complete(prompts[0], options)]
        pool = ThreadPoolExecutor(self._settings.batch_size, thread_name_prefix="enhancer-server")
        try:
            return [future.result() for future in [pool.submit(self._complete, prompt, options) for prompt in prompts]]
        finally:
            pool.shutdown(cancel_futures=True)

    def _complete(self, prompt: str, options: GenerationOptions) -> Completion:
        try:
            return self._retry(prompt, options)
        except _FailureError as failure:
            if options.deadline is not None and time.monotonic() >= options.deadline:
                return Completion("", 0)
            if failure.reason == "rejected":
                log.warning("the enhancer's server rejected a prompt of %s characters: %s", len(prompt), failure)
                return Completion("", 0)
            raise self._explain(failure) from None

    def _retry(self, prompt: str, options: GenerationOptions) -> Completion:
        pause = wait_random_exponential(multiplier=0.25, min=0.05, max=_LONGEST_PAUSE_S)

        def wait(state: RetryCallState) -> float:
            failure = state.outcome.exception() if state.outcome else None
            named = failure.retry_after_s if isinstance(failure, _FailureError) else 0.0
            return max(pause(state), min(named, _LONGEST_PAUSE_S))

        stop = stop_after_attempt(self._settings.server_retries + 1)
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, _FailureError) and error.passing),
            wait=wait,
            stop=stop if options.deadline is None else stop | stop_before_delay(max(0.0, options.deadline - time.monotonic())),
            reraise=True,
        )
        return retrying(self._write, prompt, options)

    def _write(self, prompt: str, options: GenerationOptions) -> Completion:
        body: dict[str, object] = {
            "model": self._name,
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "top_p": 0.95 if options.temperature else 1,
            "seed": options.seed,
        }
        if options.one_line:
            body["stop"] = ["\n"]
        if options.repetition_penalty != 1:
            # Not in OpenAI's API: vLLM and TGI know the first name, llama.cpp the second.
            body |= {"repetition_penalty": options.repetition_penalty, "repeat_penalty": options.repetition_penalty}
        if self._settings.chat:
            answer = self._ask("POST", "/chat/completions", body | {"messages": [{"role": "user", "content": prompt}]}, options.deadline)
        else:
            answer = self._ask("POST", "/completions", body | {"prompt": prompt}, options.deadline)
        try:
            text = _at(answer, "choices", 0, *(("message", "content") if self._settings.chat else ("text",)))
            counted = _at(answer, "usage", "completion_tokens") if _at(answer, "usage") else None
            if not isinstance(text, str) or not isinstance(counted, int | float | str | None):
                raise TypeError
            tokens = int(counted or len(self.tokenizer(text).input_ids))
        except (IndexError, TypeError, ValueError):
            raise self._failure("nonsense", f"an answer of another form ({json.dumps(answer)[:200]})", passing=True) from None
        self.trouble = None
        return Completion(text, tokens)

    def _ask(self, method: str, path: str, body: dict[str, object] | None, deadline: float | None) -> object:
        """The JSON of an answer. The time is for the whole of it: a server that sends a byte now and then gets no more."""
        timeout_s = self._left(deadline)
        if timeout_s <= 0:
            raise self._failure("timeout", "the deadline has passed", passing=False)
        ends = time.monotonic() + timeout_s
        received = bytearray()
        try:
            with self._client.stream(method, self._url + path, json=body, timeout=timeout_s) as response:
                for part in response.iter_bytes():
                    received += part
                    if time.monotonic() > ends:
                        raise self._failure("timeout", f"no whole answer within {timeout_s:.3g} s", passing=True)
                    if len(received) > _MAX_BYTES:
                        raise self._failure("nonsense", f"an answer of more than {_MAX_BYTES} bytes", passing=True)
        except httpx.TimeoutException:
            raise self._failure("timeout", f"no answer within {timeout_s:.3g} s", passing=True) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failure("unreachable", str(error) or type(error).__name__, passing=True) from None
        text = received.decode(errors="replace")
        if not response.is_success:
            raise self._refusal(path, response, text)
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise self._failure("nonsense", f"an answer that is no JSON ({text[:200]!r})", passing=True) from None

    def _refusal(self, path: str, response: httpx.Response, text: str) -> Exception:
        status, reason = response.status_code, f"status {response.status_code}: {' '.join(text.split())[:300]}"
        if status in (408, 429) or status >= 500:
            after = response.headers.get("Retry-After", "")
            return self._failure("refused", reason, passing=True, retry_after_s=float(after) if after.isdecimal() else 0.0)
        if status in (401, 403):
            self._count_failure("rejected")
            return ModelError(f"{self._url} refused the key ({self._without_key(reason)}): set MATINEE_ENHANCER__API_KEY")
        if status == 404 or response.is_redirect:
            self._count_failure("rejected")
            return ModelError(
                f"{self._url}{path} is not there ({self._without_key(reason)}): enhancer.url is the API's base, mostly ending in /v1; "
                f"its /models must list {self._name!r}"
            )
        return self._failure("rejected", reason, passing=False)

    def _failure(self, reason: str, message: str, *, passing: bool, retry_after_s: float = 0.0) -> _FailureError:
        self._count_failure(reason)
        failure = _FailureError(reason, self._without_key(message), passing=passing, retry_after_s=retry_after_s)
        if passing:
            self.trouble = str(self._explain(failure))
        return failure

    def _without_key(self, text: str) -> str:
        # Some servers repeat the key that they refuse.
        return text.replace(self._key, "...") if self._key else text

    def _explain(self, failure: _FailureError) -> ModelServerError | ModelError:
        if failure.reason == "rejected":
            return ModelError(f"the enhancer's server {self._url} rejects a plain request ({failure}): check enhancer.chat and its model")
        return ModelServerError(f"the enhancer's server {self._url}: {failure.reason} ({failure}). See that it is up and not overloaded.")
