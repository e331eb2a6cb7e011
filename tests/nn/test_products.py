"""Products through either library agree in value and gradient, whatever their size and layout."""

import pytest
import torch

from zoo_lightning.nn.fast import products
from zoo_lightning.nn.fast.products import product, row_products


@pytest.mark.parametrize("shape", [(4, 5, 6), (200, 150, 180), (130, 97, 130)])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_products_equal_matmul_in_value_and_gradient(shape, lead):
    p, q, n = shape
    a, b = torch.randn(*lead, p, q), torch.randn(*lead, q, n)
    grad = torch.randn(*lead, p, n)
    results = []
    for function in (torch.matmul, product):
        leaves = [t.clone().requires_grad_() for t in (a, b)]
        y = function(*leaves)
        results.append((y, *torch.autograd.grad(y, leaves, grad)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        assert found.is_contiguous()


def test_large_operands_are_copied_in_parts_without_changing_the_result(monkeypatch):
    a, b = torch.randn(700, 200, requires_grad=True), torch.randn(200, 128, requires_grad=True)
    whole = torch.autograd.grad(product(a, b).square().sum(), [a, b])
    monkeypatch.setattr(products, "COPY_ELEMENTS", 200 * 128)
    parts = torch.autograd.grad(product(a, b).square().sum(), [a, b])
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-3)


def test_products_work_where_onednn_is_missing(monkeypatch):
    a, b = torch.randn(200, 150), torch.randn(180, 150)
    expected = row_products(a, b)
    monkeypatch.setattr(products, "_ONEDNN_LINEAR", None)
    torch.testing.assert_close(row_products(a, b), expected, rtol=1e-4, atol=1e-4)


def test_products_keep_their_type_under_autocast():
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert product(a, b).dtype == torch.float32
    assert product(a.double(), b.double()).dtype == torch.float64


def test_torch_still_has_the_private_product_of_onednn():
    """Fails where torch drops or changes it: then only speed is lost, see ``_ONEDNN_LINEAR``."""
    assert products._ONEDNN_LINEAR is not None
    a, b = torch.randn(200, 150), torch.randn(180, 150)
    assert products._suits_onednn(a, b) == torch.backends.mkldnn.is_available()
    found = products._ONEDNN_LINEAR(a, b, None, "none", [], "")
    torch.testing.assert_close(found, a @ b.T, rtol=1e-4, atol=1e-4)
