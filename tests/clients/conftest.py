"""What clients are given: a model with prompts, saved as its users save it, and some texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from torch import nn

from st_vi.modules import AttentionPooling, MLPHead

TEXTS = [
    "Thư viện mở cửa đến chín giờ tối.",
    "Chợ nổi Cái Răng họp từ lúc mờ sáng.",
    "Bác sĩ khuyên nên uống đủ nước mỗi ngày.",
    "Vé tàu Tết bán hết trong một buổi sáng.",
    "Nhà trường tổ chức thi hát cho học sinh.",
    "Giá cà phê tăng vì mất mùa.",
]
QUERIES = ["Mấy giờ thư viện đóng cửa?", "Vì sao giá cà phê tăng?"]


@pytest.fixture(params=["viclsr", "attention"])
def model(request: pytest.FixtureRequest, tiny_model: SentenceTransformer) -> SentenceTransformer:
    """The shapes of both systems, and prompts that stand in front of questions and passages."""
    if request.param == "attention":
        tiny_model[1] = AttentionPooling(32)
        nn.init.normal_(tiny_model[1].attention_context_vector)  # as drawn, nearly all weights are the same
        tiny_model[2] = MLPHead(32, 24, num_layers=2, activation="gelu", layer_norm=True)
    tiny_model.prompts = {"query": "câu hỏi: ", "document": "đoạn văn: "}
    return tiny_model.eval()


@pytest.fixture
def saved(model: SentenceTransformer, tmp_path: Path) -> str:
    """The folder in which it was saved."""
    folder = tmp_path / "saved"
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)
