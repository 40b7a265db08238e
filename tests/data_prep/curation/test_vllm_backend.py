"""Texts of a real vLLM engine: what they depend on, and what a refused prompt costs the others."""

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from data_prep.curation.backends import Question, Sampling
from data_prep.curation.backends.vllm import VllmBackend, VllmSettings
from future_l1_verl.toy import tiny

pytestmark = pytest.mark.engine

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_tokens=12)
ENGINE = {"dtype": "float32", "max_model_len": 256, "limit_mm_per_prompt": {"image": 4}}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmBackend]:
    model = tmp_path_factory.mktemp("model")
    tiny.build(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # as the backend sets it; and as it was afterwards
        backend = VllmSettings(str(model), SAMPLING, ENGINE).start()
        yield backend
        backend.engine.llm_engine.engine_core.shutdown()


@functools.cache
def image(shade: int) -> Image.Image:
    return Image.new("RGB", (64, 64), (shade, 0, 255 - shade))


def question(shade: int, *seeds: int, words: int = 5) -> Question:
    content = [{"type": "image", "image": image(shade)}, {"type": "text", "text": "What does it hit?" * words}]
    return Question([{"role": "user", "content": content}], list(seeds))


# More prompt tokens than a step takes: a prompt may not be cut on a CPU, where what a part of it drew cannot be taken back.
MANY = [question(shade, shade) for shade in range(240)]


def texts(backend: VllmBackend, *questions: Question) -> list[list[str | None]]:
    return [[text.text for text in of_one] for of_one in backend.texts(questions)]


def test_texts_depend_on_question_and_seed_and_not_on_what_was_asked_before(backend: VllmBackend) -> None:
    asked = [question(10, 3, 4, 5), question(200, 3, 4, 5)]
    first = texts(backend, *asked)
    assert all(len(set(of_one)) == 3 for of_one in first)
    texts(backend, question(90, 1))
    assert texts(backend, *asked) == first


def test_a_seed_gives_its_text_whatever_seeds_come_with_it(backend: VllmBackend) -> None:
    """On it rests that a text which failed can be asked for alone."""
    ((*_, last),) = texts(backend, question(10, 3, 4, 5))
    assert texts(backend, question(10, 5)) == [[last]]
    assert texts(backend, question(10, 6)) != [[last]]


def test_a_refused_prompt_names_its_fault_and_the_others_have_their_texts(backend: VllmBackend) -> None:
    good, bad, other = backend.texts([question(10, 3), question(10, 1, 2, words=200), question(20, 4)])
    assert good[0].text and other[0].text
    assert [text.text for text in bad] == [None, None]
    assert all("256" in text.error for text in bad)


def test_more_prompts_than_one_step_takes(backend: VllmBackend) -> None:
    together = texts(backend, *MANY)
    assert all(text is not None for (text,) in together)


def test_tokens_are_counted(backend: VllmBackend) -> None:
    prompt, generated = backend.tokens.prompt, backend.tokens.generated
    backend.texts([question(10, 3, 4)])
    alone = backend.tokens.prompt - prompt
    assert backend.tokens.generated - generated <= 2 * SAMPLING.max_tokens
    backend.texts([question(10, 3), question(10, 4)])
    assert backend.tokens.prompt - prompt == 3 * alone


def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=str(tmp_path)):
        VllmSettings(str(tmp_path), SAMPLING, ENGINE).start()
