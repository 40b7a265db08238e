import torch
from hypothesis import given
from hypothesis import strategies as st

from future_l1_verl.latents.checksum import checksum


@given(st.integers(0, 10_000), st.integers(0, 63), st.sampled_from([torch.float32, torch.bfloat16]))
def test_one_changed_bit_changes_it(seed: int, index: int, dtype: torch.dtype) -> None:
    latents = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)
    changed = latents.clone().view(torch.uint8).view(-1)
    changed[index] ^= 1
    assert checksum(changed.view(dtype).view(8, 8)) != checksum(latents)
    assert checksum(latents.clone()) == checksum(latents)


def test_no_latents_have_one_too() -> None:
    assert checksum(torch.zeros(0, 8)) == checksum(torch.zeros(0, 8))
