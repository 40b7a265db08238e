import pytest
import torch

from future_l1_verl.sft.objective import latent_sft_loss, squared_error


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
