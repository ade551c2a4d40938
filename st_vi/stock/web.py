"""The web client with which transformers fetches images."""

from __future__ import annotations


def fetch(address: str, timeout: float) -> bytes:
    """Download the content of an address.

    ``transformers.image_utils.httpx`` is httpx or its successor, whichever huggingface-hub brought along.

    Args:
        address: An http or https URL; redirects are followed.
        timeout: Seconds for each step.

    Raises:
        Exception: The client's own error if the server cannot be reached or returns an error.
    """
    from transformers.image_utils import httpx  # type: ignore[attr-defined]

    answer = httpx.get(address, follow_redirects=True, timeout=timeout)
    return answer.raise_for_status().content
