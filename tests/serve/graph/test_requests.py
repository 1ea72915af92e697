from matinee.filters import ItemFilter
from serve.graph import requests


def test_texts_of_requests_are_canonical_and_ids_stay() -> None:
    request = requests.RecommendRequest.model_validate(
        {
            "likes": ["E\u0301te\u0301\u200b", {"id": "e\u0301"}],
            "text": "a cafe\u0301 by the\u00ad sea",
            "filter": {"genres": ["E\u0301pope\u0301e"]},
        }
    )
    assert request.likes[0] == "Été"
    assert request.likes[1].id == "e\u0301"  # type: ignore[union-attr]
    assert request.text == "a café by the sea"
    assert request.filter == ItemFilter(genres=("Épopée",))
