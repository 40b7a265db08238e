"""The hooks know no architecture: vLLM against the oracle once more, with the other backbone, which takes no videos."""

from pathlib import Path

import pytest
from decoding_harness import PARITY, TIMES, Oracle, in_process
from vllm import SamplingParams

from future_l1_verl.toy import tiny

pytestmark = pytest.mark.engine


def test_vllm_and_the_oracle_agree_on_text_and_images(tmp_path: Path) -> None:
    tiny.build(tmp_path, seed=0, max_latents=6, backbone="qwen2_5_vl")
    oracle = Oracle(str(tmp_path))
    prompts = [*oracle.prompts()[:3], oracle.image("what happens next?")] * TIMES
    sampling = SamplingParams(n=3, max_tokens=48, temperature=1.0, ignore_eos=True, logprobs=0, logit_bias=oracle.bias)
    with in_process(str(tmp_path)) as llm:
        outputs = llm.generate([prompt.for_vllm for prompt in prompts], sampling, use_tqdm=False)
    agreement = oracle.compare(outputs, prompts)
    assert agreement.worst <= PARITY
    assert agreement.slots > 100 * TIMES and min(agreement.roles.values()) > 5 * TIMES
