import pytest
import torch

from future_l1_verl.latents.errors import ERRORS, squared_error
from future_l1_verl.sft.objective import latent_sft_loss, prediction_metrics, prediction_sums


def jagged(*rows: list[float]) -> torch.Tensor:
    return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)


def test_the_error_is_a_mean_over_dimensions() -> None:
    h, z = torch.tensor([[1.0, 3.0]], requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    error = squared_error(h, z)
    assert error.tolist() == [5.0]
    error.sum().backward()
    assert h.grad.tolist() == [[1.0, 3.0]] and z.grad is None


def test_the_loss_is_the_same_however_the_batch_is_cut() -> None:
    # Entry p scores token p + 1: row 1 supervises tokens 1 and 2, row 2 token 1.
    log_probs, masks = [[-1.0, -2.0, -9.0], [-4.0, -9.0]], [[0.0, 1.0, 1.0], [0.0, 1.0]]
    terms = [[0.0, 3.0, 0.0], [1.0, 0.0]]

    def loss(rows: slice) -> float:
        data = {"loss_mask": jagged(*masks[rows]), "batch_num_tokens": 3, "batch_num_latents": 2, "dp_size": 1}
        output = {"log_probs": jagged(*log_probs[rows]), "latent_term": jagged(*terms[rows])}
        return float(latent_sft_loss(output, data, weight=0.1)[0])

    expected = (1 + 2 + 4) / 3 + 0.1 * (3 + 1) / 2
    assert loss(slice(0, 2)) == pytest.approx(expected)
    assert loss(slice(0, 1)) + loss(slice(1, 2)) == pytest.approx(expected)


def test_the_other_errors() -> None:
    """docs/differences.md, row 29: the paper's formula sums, which is H times the mean that lambda = 0.1 belongs with."""
    h, z = torch.randn(3, 8), torch.randn(3, 8)
    torch.testing.assert_close(ERRORS["sum"](h, z), 8 * ERRORS["mean"](h, z))
    torch.testing.assert_close(ERRORS["cosine"](h, 5 * h), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(ERRORS["cosine"](h, -h), torch.full((3,), 2.0))


@pytest.mark.parametrize("name", ERRORS)
def test_no_gradient_reaches_the_target(name: str) -> None:
    """Row 28."""
    h, z = torch.randn(3, 8, requires_grad=True), torch.randn(3, 8, requires_grad=True)
    ERRORS[name](h, z).sum().backward()
    assert h.grad.abs().max() > 0 and z.grad is None


def test_prediction_is_measured_against_the_mean_and_by_retrieval() -> None:
    z = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [4.0, 4.0]])
    # The first and the last two are nearest to their own; the second is nearest to the third.
    h = torch.tensor([[1.0, 0.0], [4.0, 3.0], [4.0, 4.0], [3.0, 4.0]])
    sums = prediction_sums(h, z)
    assert sums["retrieved"] == 3
    # Guessing hits 1/4 for the two that are alone and 2/4 for the two alike.
    assert sums["chance"] == pytest.approx(0.25 + 0.25 + 0.5 + 0.5)
    # Squares over two dimensions: 1/2, 9/2, 0, 1/2. The mean is (3, 2): 13/2, 5/2, 5/2, 5/2.
    metrics = prediction_metrics({name: 2 * value for name, value in sums.items()})
    assert metrics["val/latent_squared_error"] == pytest.approx((0.5 + 4.5 + 0 + 0.5) / 4)
    assert metrics["val/latent_baseline_error"] == pytest.approx((6.5 + 2.5 * 3) / 4)
    assert metrics["val/latent_retrieval"] == 0.75 and metrics["val/latent_retrieval_chance"] == 0.375
    assert metrics["val/rms_target"] == pytest.approx(((16 + 32 + 32) / 8) ** 0.5)


def test_without_latents_there_is_nothing_to_say() -> None:
    assert prediction_metrics(prediction_sums(torch.zeros(0, 4), torch.zeros(0, 4))) == {}
