"""The live demo of the front page as HTML: its words in both languages, and the recorded answers."""

from __future__ import annotations

import html
import json

from demo_file import NEAREST, DemoFile

LEAST = 0.7  # where the bars begin: cosines of vi-mini lie above

WORDS = {
    "en": {
        "label": "Type Vietnamese, with or without diacritics",
        "load": "Load the model ({size} MB)",
        "try": "Try:",
        "recorded": "Recorded when this page was built.",
        "ask": "Recorded when this page was built. To ask your own, click into the box: the model loads ({size} MB).",
        "loading": "Loading the model: {done} of {size} MB",
        "found": "The nearest of {count} sentences, in {ms} ms",
        "empty": "Type something.",
        "old": "This browser cannot run the model, which needs WebAssembly with SIMD. These answers are recorded.",
        "failed": "The model did not load ({error}). Press the button to try again.",
        "note": (
            "`vi-mini`, the encoder that comes with the package, runs in your browser. It is loaded once ({size} MB) "
            "and then works offline; what you type stays on this page. The {count} sentences are the sample sets of "
            "the package, most of which the model was trained on. Bars show the cosine from 0.7 to 1."
        ),
    },
    "vi": {
        "label": "Gõ tiếng Việt, có dấu hoặc không dấu",
        "load": "Tải mô hình ({size} MB)",
        "try": "Gõ thử:",
        "recorded": "Kết quả ghi sẵn khi tạo trang này.",
        "ask": "Kết quả ghi sẵn khi tạo trang này. Muốn tìm câu khác, hãy bấm vào ô trên để tải mô hình ({size} MB).",
        "loading": "Đang tải mô hình: {done}/{size} MB",
        "found": "Những câu gần nhất trong {count} câu, tìm trong {ms} ms",
        "empty": "Hãy gõ một câu.",
        "old": "Trình duyệt này không chạy được mô hình (cần WebAssembly có SIMD). Đây là kết quả ghi sẵn.",
        "failed": "Không tải được mô hình ({error}). Bấm nút để thử lại.",
        "note": (
            "`vi-mini`, encoder đi kèm package, chạy ngay trong trình duyệt. Mô hình chỉ tải một lần ({size} MB), sau "
            "đó chạy được cả khi mất mạng; những gì bạn gõ không rời khỏi trang này. {count} câu lấy từ các bộ dữ liệu "
            "mẫu của package, phần lớn đã dùng để huấn luyện mô hình. Thanh ngang biểu diễn cosine từ 0,7 đến 1."
        ),
    },
}


def live_demo(demo: DemoFile, language: str, address: str) -> str:
    """The demo as HTML. Without scripts it shows the recorded answers; page.js makes the rest.

    Args:
        demo: The file, and the answers.
        language: "en" or "vi".
        address: Of the file, from the page.
    """
    size = f"{demo.path.stat().st_size / 1e6:.0f}"
    count = f"{demo.count:,}" if language == "en" else f"{demo.count:,}".replace(",", ".")
    words = {name: text.replace("{size}", size).replace("{count}", count) for name, text in WORDS[language].items()}
    note = words.pop("note").replace("`vi-mini`", "<code>vi-mini</code>")
    settings = {"address": address, "least": LEAST, "nearest": NEAREST, "language": language, "words": words}
    answers = "".join(
        f'<figure><figcaption lang="vi">{html.escape(query)}</figcaption>{_list(found, language)}</figure>'
        for query, found in demo.recorded.items()
    )
    return (
        f'<div class="st-vi-live" data-settings="{html.escape(json.dumps(settings))}">'
        f'<div class="st-vi-recorded">{answers}<p>{words["recorded"]}</p></div></div>'
        f'<p class="st-vi-note">{note}</p>'
    )


def _list(found: list[tuple[str, float]], language: str) -> str:
    """Sentences with their cosines; page.js makes the same of live answers."""
    rows = []
    for text, cosine in found:
        bar = (
            f'<span class="st-vi-bar"><i style="width:{100 * max(0, (cosine - LEAST) / (1 - LEAST)):.1f}%"></i></span>'
        )
        number = f"{cosine:.2f}" if language == "en" else f"{cosine:.2f}".replace(".", ",")
        rows.append(f'<li><span lang="vi">{html.escape(text)}</span>{bar}<b>{number}</b></li>')
    return f"<ol>{''.join(rows)}</ol>"
