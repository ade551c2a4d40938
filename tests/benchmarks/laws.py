"""Twenty thousand articles of Vietnamese law to a search: encoded in chunks, 500 more added, ten questions asked.

    python -m tests.benchmarks.laws --output outputs/laws
    python -m tests.benchmarks.laws --output outputs/laws --search
    python -m tests.benchmarks.laws --output outputs/laws --wikipedia

The encoder is `vi-mini` in bfloat16 on one thread, or with ``--teacher`` e5-small-vi. A folder that is there is gone on
with, and times are then those of what was left.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from st_vi.data import split_by_anchor
from st_vi.data.documents import document_questions
from st_vi.encoding import encode_corpus
from st_vi.encoding.search import Passage, SearchIndex
from st_vi.encoding.search.index import Found
from st_vi.encoding.search.vectors import VectorStore
from st_vi.hub import load
from st_vi.recipes.ablation.tables import markdown
from st_vi.text import strip_diacritics
from tests.benchmarks.viclsr import BASE, DATA

# Written before any search was run; with the title of the article that answers. The last one came later: it replaces a
# question whose article is not among the first 20,000, and is on the first article of a random draw that is not about a
# law as a whole.
QUESTIONS = {
    "Nam nữ bao nhiêu tuổi thì được đăng ký kết hôn?": "Điều kiện kết hôn",
    "Những nơi nào cấm hút thuốc lá hoàn toàn?": "Địa điểm cấm hút thuốc lá hoàn toàn",
    "Người lao động được nghỉ hưởng lương những ngày lễ, tết nào?": "Nghỉ lễ, tết",
    "Bao nhiêu tuổi thì được bầu cử, bao nhiêu tuổi thì được ứng cử?": "Tuổi bầu cử và tuổi ứng cử",
    "Ai được nộp đơn yêu cầu Tòa án mở thủ tục phá sản?": (
        "Người có quyền, nghĩa vụ nộp đơn yêu cầu mở thủ tục phá sản"
    ),
    "Doanh nghiệp tư nhân do ai làm chủ?": "Doanh nghiệp tư nhân",
    "Từ bao nhiêu tuổi thì được hiến bộ phận cơ thể?": "Quyền hiến mô, bộ phận cơ thể người và hiến xác",
    "Một ngày làm việc bình thường không được quá mấy giờ?": "Thời giờ làm việc bình thường",
    "Lương thử việc ít nhất bằng bao nhiêu phần trăm lương chính thức?": "Tiền lương thử việc",
    "Giấy phép lao động của người nước ngoài hết hạn thì công ty phải thu hồi trong bao nhiêu ngày?": (
        "Trình tự thu hồi giấy phép lao động"
    ),
}
# What an article must say to answer: consolidated laws and decrees repeat one another. Written after searches with
# other weights, and before the one whose figures are in the docs.
ANSWERS = (
    "đủ 20 tuổi trở lên, nữ từ đủ 18 tuổi",
    "địa điểm cấm hút thuốc lá hoàn toàn",
    "tết dương lịch",
    "hai mươi mốt tuổi",
    "có quyền nộp đơn yêu cầu mở thủ tục phá sản",
    "doanh nghiệp do một cá nhân làm chủ",
    "từ đủ mười tám tuổi trở lên, có năng lực hành vi dân sự đầy đủ có quyền hiến",
    "không quá 08 giờ trong 01 ngày",
    "ít nhất phải bằng 85%",
    "15 ngày kể từ ngày giấy phép lao động hết hiệu lực",
)
# Written afterwards, on other articles: what the weight of titles was chosen on.
CHOICE = {
    "Thử việc tối đa bao nhiêu ngày?": "Thời gian thử việc",
    "Nghỉ sinh con được mấy tháng?": "Nghỉ thai sản",
    "Nghỉ việc thì được nhận bao nhiêu tiền trợ cấp?": "Trợ cấp thôi việc",
    "Làm thêm vào ngày lễ được trả lương gấp mấy?": "Tiền lương làm thêm giờ, làm việc vào ban đêm",
    "Một năm được nghỉ phép bao nhiêu ngày?": "Nghỉ hằng năm",
    "Khi nào công ty được đuổi việc nhân viên?": "Áp dụng hình thức xử lý kỷ luật sa thải",
    "Ai có quyền xin ly hôn?": "Quyền yêu cầu giải quyết ly hôn",
    "Vợ chồng cùng đồng ý chia tay thì tòa án giải quyết thế nào?": "Thuận tình ly hôn",
    "Ly hôn rồi có được ở lại nhà của chồng cũ không?": "Quyền lưu cư của vợ hoặc chồng khi ly hôn",
    "Nhờ người khác mang thai hộ cần điều kiện gì?": "Điều kiện mang thai hộ vì mục đích nhân đạo",
    "Đặt tên công ty không được phạm những điều gì?": "Những điều cấm trong đặt tên doanh nghiệp",
    "Vỏ bao thuốc lá phải in cảnh báo thế nào?": "Ghi nhãn, in cảnh báo sức khỏe trên bao bì thuốc lá",
    "Người hút thuốc phải giữ những nghĩa vụ gì?": "Nghĩa vụ của người hút thuốc lá",
    "Có mấy loại cổ phần?": "Các loại cổ phần",
    "Doanh nghiệp nào bắt buộc phải kiểm toán báo cáo tài chính?": "Kiểm toán bắt buộc",
    "Nhận trẻ dưới 15 tuổi vào làm cần những gì?": "Sử dụng người chưa đủ 15 tuổi làm việc",
    "Khi nào người bào chữa được tham gia vụ án?": "Thời điểm người bào chữa tham gia tố tụng",
    "Gọi tổng đài nào khi thấy trẻ bị đánh?": "Nhiệm vụ của Tổng đài điện thoại quốc gia bảo vệ trẻ em",
    "Quảng cáo thực phẩm phải đăng ký ra sao?": "Đăng ký nội dung quảng cáo thực phẩm",
    "Di tích được xếp làm mấy loại?": "Phân loại di tích",
    "Vợ chồng chưa ly hôn có được chia tài sản không?": "Chia tài sản chung trong thời kỳ hôn nhân",
    "Công an phục vụ đến bao nhiêu tuổi thì nghỉ hưu?": "Hạn tuổi phục vụ của hạ sĩ quan, sĩ quan Công an nhân dân",
    "Đua chó, đua ngựa phải đáp ứng điều kiện gì?": "Điều kiện tổ chức đua ngựa, đua chó",
    "Thuyền trưởng có nhiệm vụ gì?": "Thuyền trưởng",
}

# Written before any search, each from the text of one article, by its place in the file from 0. Sixty articles of 150
# to 2,500 characters were drawn, of titles that at most two have and that say more than "Nguyên tắc" (principles);
# eight that nobody would ask for were left out.
DRAWN = {
    3542: "Người dân thấy thực phẩm bẩn thì báo cho ai?",
    14200: "Tiền ký quỹ gửi ở ngân hàng được hưởng lãi bao nhiêu?",
    14506: "Nhà in muốn in sách phải có giấy tờ gì?",
    18481: "Bộ Ngoại giao lo những việc gì về kết hôn với người nước ngoài?",
    3183: "Muốn được công nhận GAP khác thì nộp những giấy tờ nào?",
    6596: "Ngành thống kê tập trung gồm những cơ quan nào từ trung ương xuống huyện?",
    17131: "Ai quản lý kênh mương nội đồng và công trình thủy lợi nhỏ?",
    17762: "Nhập khẩu hàng hóa thì phải chịu những nghĩa vụ gì về chất lượng?",
    15747: "Vụ nào của Ngân hàng Nhà nước giám sát việc tiêu hủy tiền?",
    11887: "Máy X-quang chẩn đoán di động thì khai báo với cơ quan nào?",
    16121: "Ai được thay mặt Ngân hàng Nhà nước trả lời báo chí?",
    15558: "Khi nào ngân hàng được gia hạn khoản vay tái cấp vốn?",
    13889: "Công ty loại nào được làm dịch vụ xếp hạng tín nhiệm?",
    12466: "Công ty TNHH một thành viên do nhà nước sở hữu tổ chức bộ máy theo mô hình nào?",
    7190: "Công an cư xử với cấp trên và cấp dưới thế nào?",
    69: "Tiền cho chính sách thanh niên xung phong lấy từ đâu?",
    17519: "Ủy ban Thẩm phán của tòa cấp cao có bao nhiêu người?",
    2456: "Đo địa vật lý trong lỗ khoan có những phương pháp nào?",
    3371: "Kiểm tra chặt và kiểm tra thông thường thực phẩm nhập khẩu khác nhau thế nào?",
    8558: "Báo giấy phải dành bao nhiêu phần trăm tin bài cho trẻ em?",
    2985: "Trang thiết bị y tế phải đạt điều kiện gì mới được cấp số lưu hành?",
    12684: "Bán doanh nghiệp tư nhân rồi có còn phải trả nợ cũ không?",
    436: "Bảo trì luồng lạch sông ngòi gồm những việc gì?",
    19740: "Bộ Công an và Bộ Tài chính cùng nhau chống rửa tiền ra sao?",
    13871: "Thương nhân đầu mối xăng dầu đăng ký tổng nguồn hằng năm thế nào?",
    19563: "Xảy ra khủng bố thì Việt Nam phối hợp với nước ngoài theo nguyên tắc nào?",
    9265: "Kiểm tra tần số vô tuyến xong bao lâu thì có kết luận?",
    6081: "Các trạm định vị vệ tinh đặt cách nhau bao nhiêu ki-lô-mét?",
    7548: "Hòa giải viên hòa giải thành bao nhiêu phần trăm thì được giấy khen?",
    9959: "Trong mấy tháng thì được xin không công nhận bản án của tòa nước ngoài?",
    10226: "Công ty cho thuê lại lao động là gì?",
    14544: "Mở tiệm photocopy phải khai báo với ai?",
    18249: "Lập vi bằng xong trong mấy ngày phải gửi Sở Tư pháp?",
    9824: "Khi nào tòa phúc thẩm dừng xét xử và giữ nguyên bản án cũ?",
    2770: "Người bị tạm giam có được ra khỏi buồng giam không?",
    15764: "Nhà máy in tiền được in tiền dựa trên những gì?",
    15294: "Trung tâm tín dụng thu thập những thông tin gì của người vay?",
    8564: "Sách thiếu nhi nước ngoài dịch sang tiếng Việt phải đáp ứng yêu cầu gì?",
    12846: "Ai được quyết định cho doanh nghiệp nhà nước giải thể?",
    4198: "Tin báo tội phạm khi nào bị tạm dừng giải quyết?",
    18436: "Ai được yêu cầu tòa hạn chế quyền của cha mẹ với con nhỏ?",
    16264: "Quyết định thanh tra ngân hàng phải công bố trong mấy ngày?",
    9156: "Thiết bị điện phát sóng vô tuyến gây nhiễu phải tuân theo quy định nào?",
    720: "Chở hàng bằng thuyền làm mất hàng thì bồi thường tối đa bao nhiêu?",
    10524: "Tranh chấp lao động tập thể về quyền thì ai giải quyết?",
    10403: "Công ty phải có phòng tắm, nhà vệ sinh cho lao động nữ không?",
    12991: "Dự án trọng điểm vùng Thủ đô được ưu tiên vốn từ đâu?",
    11917: "Nhập khẩu nguồn phóng xạ cần hồ sơ gì?",
    2793: "Phát hiện đồ cấm trong buồng giam thì xử lý thế nào?",
    16673: "Kiểm định đối chứng đồng hồ điện nước phải do mấy tổ chức làm?",
    14103: "Khi nào nhà máy bị tạm dừng xuất xưởng một kiểu xe?",
    3485: "Phòng kiểm nghiệm thực phẩm muốn được miễn giám sát phải nộp gì?",
}

Row = list[str]
SIDES = ("vectors", "words", "both")
TITLE_WEIGHTS = (0.5, 0.0, 1.0)


def teacher() -> SentenceTransformer:
    """Mean pooling, unit length, and the prompt that its authors put before every text."""
    transformer = Transformer(str(BASE.parent / "e5-small-vi"), model_kwargs={"dtype": "bfloat16"})
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    return SentenceTransformer(modules=modules, prompts={"query": "query: "}, default_prompt_name="query", device="cpu")


def articles(count: int) -> Iterator[dict[str, Any]]:
    """The first of them."""
    with gzip.open(DATA / "open" / "law.jsonl.gz", "rt", encoding="utf-8") as file:
        yield from map(json.loads, islice(file, count))


def timed(model: SentenceTransformer, count: int, output: Path, shard_rows: int) -> list[str]:
    """Encode the first articles: seconds, also those that this process had a processor."""
    begun, worked = time.perf_counter(), time.process_time()
    keep = ["title", "subject"]
    rows = articles(count)
    result = encode_corpus(model, rows, output, keep=keep, chunk=True, shard_rows=shard_rows, show_progress_bar=True)
    seconds, work = time.perf_counter() - begun, time.process_time() - worked
    return [f"{count:,}", str(result).splitlines()[0], f"{seconds:.0f}", f"{work:.0f}"]


def ranks(index: SearchIndex, questions: dict[str, str], answers: Sequence[str], texts: Sequence[str]) -> list[Row]:
    """For each question, as `typed`, the place of the right article on each side and on both.

    Of an article that was split, `search` gives only the best passage, so a place is one among articles. Right is the
    article with the title or, where there are answers, any whose text has that of the question.
    """
    rows = []
    for (question, title), answer in zip_longest(questions.items(), answers):
        for asked in typed(question).values():
            places, first = [], ""
            for side in SIDES:
                found = index.search(asked, top=1000, side=side)
                right = [one.passage.title == title or (answer and answer in text_of(one, texts)) for one in found]
                places.append(str(right.index(True) + 1) if any(right) else "—")
                first = found[0].passage.title
            rows.append([asked, *places, first])
    return rows


def typed(question: str) -> dict[str, str]:
    """With diacritics, without them in every other word, and without them."""
    words = question.split()
    words[::2] = map(strip_diacritics, words[::2])
    return {"with": question, "half": " ".join(words), "without": strip_diacritics(question)}


def text_of(result: Found, texts: Sequence[str]) -> str:
    """The whole article of a passage, in lower case."""
    return texts[int(result.passage.place.removeprefix("row ")) - 1].lower()


def summary(rows: list[list[str]]) -> list[list[str]]:
    """Right answers in the first place, first five and first ten, mean reciprocal rank; for each way of typing."""
    table = []
    ways = list(typed(""))
    for column, side in enumerate(SIDES, 1):
        for number, name in enumerate(ways):
            part = rows[number :: len(ways)]
            ranks = [float(row[column]) if row[column] != "—" else math.inf for row in part]
            first, five, ten = (sum(rank <= most for rank in ranks) for most in (1, 5, 10))
            mean = np.mean([1 / rank for rank in ranks])
            table.append([side, name, f"{first} of {len(ranks)}", str(five), str(ten), f"{mean:.2f}"])
    return table


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("outputs/laws"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--more", type=int, default=500)
    parser.add_argument("--shard-rows", type=int, default=3000)
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--search", action="store_true", help="ask the questions over the first --rows articles")
    parser.add_argument("--wikipedia", action="store_true", help="what titles do to questions about Wikipedia")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = teacher() if options.teacher else load("vi-mini", device="cpu", model_kwargs={"dtype": "bfloat16"})
    if not options.search and not options.wikipedia:
        counts = (options.rows, options.rows + options.more)
        runs = [timed(model, count, options.output, options.shard_rows) for count in counts]
        print(markdown(["articles", "result", "seconds", "of them at work"], runs))
        return
    if options.wikipedia:
        table = wikipedia(model, VectorStore(options.output / "wikipedia", model))
        print(markdown(["weight of titles", "MRR", "without diacritics"], table))
        return
    file = options.output / "laws.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = list(articles(options.rows))
    texts = [row["text"] for row in found]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
    begun, worked = time.perf_counter(), time.process_time()
    store = options.output / "vectors"
    index = SearchIndex.of_files(file, model, kept_in=store, show_progress_bar=True)
    seconds, work = time.perf_counter() - begun, time.process_time() - worked
    size = sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(index.passages):,} passages, index in {seconds:.0f} s, {work:.0f} of the processor; ", end="")
    print(f"{size:.0f} MB of kept vectors, peak memory {peak:.1f} GiB\n")
    drawn = {question: found[number]["title"] for number, question in DRAWN.items() if number < options.rows}
    for weight in TITLE_WEIGHTS:
        if weight != index.title_weight:
            index = SearchIndex(index.passages, model, VectorStore(store, model), title_weight=weight)
        for questions, answers in ((CHOICE, ()), (drawn, ()), (QUESTIONS, ()), (QUESTIONS, ANSWERS)):
            rows = ranks(index, questions, answers, texts)
            right = "an article that answers" if answers else "the article itself"
            print(f"titles {weight}, {len(questions)} questions, {right}\n")
            print(markdown(["question", *SIDES, "first of both"], rows) + "\n")
            counted = ["right in the first place", "in the first five", "in the first ten"]
            print(markdown(["side", "diacritics", *counted, "MRR"], summary(rows)))


def wikipedia(model: SentenceTransformer, store: VectorStore, count: int = 300) -> list[list[str]]:
    """MRR of both sides for sentences and titles of held-out articles, each to the paragraph that it was taken from."""
    with gzip.open(DATA / "open" / "wiki.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = split_by_anchor(Dataset.from_list([json.loads(line) for line in file]), 0.03, anchor="title", seed=0)
    passages = [Passage(" ".join(row["text"].split()), row["title"], "", str(n)) for n, row in enumerate(rows["test"])]
    made = document_questions(rows["test"], 4 * count, 1).shuffle(seed=0).select(range(count))
    table = []
    for weight in TITLE_WEIGHTS:
        index, found = SearchIndex(passages, model, store, title_weight=weight), []
        for change in (str, strip_diacritics):
            places = []
            for row in made:
                texts = [one.passage.text for one in index.search(change(row["anchor"]), top=1000)]
                right = [" ".join(row["positive"].split()) in text for text in texts]
                places.append(1 / (right.index(True) + 1) if any(right) else 0.0)
            found.append(f"{np.mean(places):.2f}")
        table.append([str(weight), *found])
    return table


if __name__ == "__main__":
    main()
