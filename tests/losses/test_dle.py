"""`DLELoss` against the paper's table written out, against its own parts, and in the stock trainer."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from st_vi import VIPOLYQWEN_TASKS, DLELoss, SupConNLILoss, Task
from st_vi.losses import DynamicWeightAverage
from st_vi.losses.balance import BALANCES
from st_vi.terms import CosineAlignment, InfoNCE, PairwiseRank, ScoreMSE, TeacherCosine, Term, pairs
from tests.helpers.columns import LABELS, NAN
from tests.helpers.processes import gloo, on_two


@pytest.fixture
def vectors():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(11, 5, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2)]


def by_hand(task, a, p, scores):
    """The loss of one task over its rows, as the paper's table has it."""
    s = cosine_similarity(a[:, None], p[None], dim=-1)
    own, target = s.diagonal(), torch.arange(len(a))
    loss = (cross_entropy(s / 0.07, target) + cross_entropy(s.T / 0.07, target)) / 2
    if task == 0:
        score = (own + 1) / 2
        loss = loss + 3.0 * ((score - scores) ** 2).mean()
        pairs = [(i, j) for i in range(len(a)) for j in range(len(a)) if scores[i] > scores[j]]
        return loss + sum((0.05 - (score[i] - score[j])).clamp(min=0) for i, j in pairs) / len(pairs)
    if task == 1:
        return loss + (1 - own).mean()
    margin, weight = (0.3, 1.5) if task == 4 else (0.2, 1.0)
    hardest = (s - 9 * torch.eye(len(a), dtype=s.dtype)).amax(dim=1) if len(a) > 1 else own * 0 - 9
    return loss + weight * ((hardest - own) / 0.07 + margin).clamp(min=0).mean()


def test_equals_the_table_weighted_by_rows(vectors):
    a, p = vectors
    expected = 0
    for task in range(5):
        rows = LABELS[:, 0] == task
        expected = expected + rows.sum() / 11 * by_hand(task, a[rows], p[rows], LABELS[rows, 1])
    components = DLELoss(None).compute_loss_from_embeddings(vectors, LABELS)
    actual = sum(components.values())
    torch.testing.assert_close(actual, expected)
    for mine, theirs in zip(torch.autograd.grad(actual, vectors), torch.autograd.grad(expected, vectors), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_mixed_equals_single_task_batches(vectors):
    loss = DLELoss(None)
    mixed = loss.compute_loss_from_embeddings(vectors, LABELS)
    parts = dict.fromkeys(mixed, 0)
    for task in range(5):
        rows = LABELS[:, 0] == task
        single = loss.compute_loss_from_embeddings([v[rows] for v in vectors], LABELS[rows])
        parts = {name: parts[name] + rows.sum() / 11 * value for name, value in single.items()}
    for name, value in mixed.items():
        torch.testing.assert_close(value, torch.as_tensor(parts[name]), msg=name)


@pytest.mark.parametrize("negatives", ["task", "batch"])
def test_the_same_keys_every_step_and_all_connected(vectors, negatives):
    loss = DLELoss(None, negatives=negatives)
    keys = [name for task in VIPOLYQWEN_TASKS for name in task.components]
    for rows in ([0, 2, 5], [1], [3, 4]):
        components = loss.compute_loss_from_embeddings([v[rows] for v in vectors], LABELS[rows])
        assert list(components) == keys
        for value in components.values():
            assert value.isfinite() and value.requires_grad and value.ndim == 0
    alone = loss.compute_loss_from_embeddings([v[[10]] for v in vectors], LABELS[[10]])
    assert sum(alone.values()) == 0  # one row: nothing to contrast with


def test_negatives_of_the_whole_batch(vectors):
    a, p = vectors
    s = cosine_similarity(a[:, None], p[None], dim=-1) / 0.07
    rows = LABELS[:, 0] == 1
    target = torch.arange(11)[rows]
    expected = (cross_entropy(s[rows], target, reduction="sum") + cross_entropy(s.T[rows], target, reduction="sum")) / 2
    components = DLELoss(None, negatives="batch").compute_loss_from_embeddings(vectors, LABELS)
    torch.testing.assert_close(components["instr_info_nce"], expected / 11)
    # Scores of other tasks order nothing, and what is of the pair alone does not depend on the candidates.
    scored = LABELS.clone()
    scored[LABELS[:, 0] != 0, 1] = 0.5
    components = DLELoss(None, negatives="batch").compute_loss_from_embeddings(vectors, scored)
    by_task = DLELoss(None).compute_loss_from_embeddings(vectors, LABELS)
    for name in ("text_pair_score_mse", "text_pair_pairwise_rank", "instr_cosine_alignment"):
        torch.testing.assert_close(components[name], by_task[name], msg=name)


def test_repeated_texts_are_no_negatives(vectors):
    loss, rows = DLELoss(None), [4, 8, 9]
    three = [v[rows] for v in vectors]
    distinct = [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])]
    same_answer = [torch.tensor([1, 2, 3]), torch.tensor([4, 4, 6])]
    names = {"vqa_multi_info_nce", "vqa_multi_hardest_negative_margin"}
    free = loss.compute_loss_from_embeddings(three, LABELS[rows], distinct)
    masked = loss.compute_loss_from_embeddings(three, LABELS[rows], same_answer)
    assert all(free[name] == loss.compute_loss_from_embeddings(three, LABELS[rows])[name] for name in names)
    assert masked["vqa_multi_info_nce"] < free["vqa_multi_info_nce"]


def test_each_similarity_matrix_is_computed_once(vectors, monkeypatch):
    sizes, products = [], pairs.products
    monkeypatch.setattr(pairs, "products", lambda *sides: sizes.append(len(sides[0])) or products(*sides))
    DLELoss(None).compute_loss_from_embeddings(vectors, LABELS)
    assert sizes == [3, 2, 2, 1, 3]  # one for each task, whatever the number of terms and views


def test_terms_have_names_and_weights(vectors):
    task = Task(
        "pair", "<pair>", (InfoNCE(temperature=0.1, weight=0.5), InfoNCE(temperature=0.2), CosineAlignment(weight=2.0))
    )
    components = DLELoss(None, [task]).compute_loss_from_embeddings(vectors, LABELS * 0)
    assert list(components) == ["pair_info_nce", "pair_info_nce_2", "pair_cosine_alignment"]
    whole = DLELoss(None, [Task("pair", "<pair>", (InfoNCE(temperature=0.1),))]).compute_loss_from_embeddings(
        vectors, LABELS * 0
    )
    torch.testing.assert_close(components["pair_info_nce"], whole["pair_info_nce"] / 2)


def test_hard_negatives_are_those_of_the_triplet_loss(vectors):
    """One task, InfoNCE alone, masks from the same ids: `SupConNLILoss`, in value and gradient."""
    columns = [*vectors, *(torch.randn_like(vectors[0]).requires_grad_() for _ in range(2))]
    ids = [torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]) + 10 * i for i in range(4)]
    ids[2][3] = ids[1][5]  # a hard negative that is another row's positive
    labels = torch.tensor([[0.0, NAN]] * 11)
    task = Task("x", "", (InfoNCE(temperature=0.1, hard_negative_weight=0.5),))
    (actual,) = DLELoss(None, [task]).compute_loss_from_embeddings(columns, labels, ids).values()
    stock = SupConNLILoss(None, 0.1, 0.5, same_anchor="mask")
    expected = stock.compute_loss_from_embeddings(columns, None, ids)
    torch.testing.assert_close(actual, expected)
    grads = zip(torch.autograd.grad(actual, columns), torch.autograd.grad(expected, columns), strict=True)
    for mine, theirs in grads:
        torch.testing.assert_close(mine, theirs)


def test_what_the_columns_and_labels_are_to_a_term(vectors):
    """Each task's terms see its own rows of every column, with their scores and teacher's scores."""
    seen = []

    class Look(Term):
        def __call__(self, pairs):
            seen.append(pairs)
            return pairs.own_cosine * 0

    columns = [*vectors, *(torch.randn_like(vectors[0]) for _ in range(3))]
    teacher = torch.arange(44, dtype=torch.float64).view(11, 4)
    labels = torch.cat([LABELS, teacher], dim=1)
    tasks = [Task(name, "", (Look(),)) for name in "abcde"]
    DLELoss(None, tasks, num_positives=2).compute_loss_from_embeddings(columns, labels)
    for task, batch in enumerate(seen):
        rows = LABELS[:, 0] == task
        given = batch.anchors, batch.positives, *batch.more_positives, *batch.negatives
        assert all(torch.equal(mine, column[rows]) for mine, column in zip(given, columns, strict=True))
        assert torch.equal(batch.known_teacher_scores, teacher[rows])
    assert len(seen) == 5


def test_bad_arguments(vectors):
    with pytest.raises(ValueError, match="different names"):
        DLELoss(None, [VIPOLYQWEN_TASKS[0]] * 2)
    with pytest.raises(ValueError, match="negatives"):
        DLELoss(None, negatives="all")
    with pytest.raises(ValueError, match="no terms"):
        Task("pair", "<pair>", ())
    with pytest.raises(TypeError, match=r"task 'pair': a term must inherit from st_vi\.terms\.Term, got <class"):
        Task("pair", "<pair>", (InfoNCE,))
    loss = DLELoss(None)
    with pytest.raises(ValueError, match=r"\(B, 2\)"):
        loss.compute_loss_from_embeddings(vectors, LABELS[:, 0])
    with pytest.raises(ValueError, match="an anchor and 1 positive"):
        loss.compute_loss_from_embeddings(vectors[:1], LABELS)
    with pytest.raises(ValueError, match="an anchor and 2 positive"):
        DLELoss(None, num_positives=2).compute_loss_from_embeddings(vectors, LABELS)
    with pytest.raises(ValueError, match="num_positives"):
        DLELoss(None, num_positives=0)
    with pytest.raises(ValueError, match=r"num_positives must be a whole number of at least 1, got 1\.5"):
        DLELoss(None, num_positives=1.5)
    with pytest.raises(ValueError, match=r"or \(B, 4\) with a teacher's score"):
        loss.compute_loss_from_embeddings([*vectors, vectors[0]], LABELS[:, [0, 1, 1]])
    for task in (5.0, -1.0, 0.5, NAN):
        with pytest.raises(ValueError, match="tasks 0 to 4"):
            loss.compute_loss_from_embeddings([v[:1] for v in vectors], torch.tensor([[task, 1.0]]))


def test_anchors_alone_are_enough_for_the_tasks_of_a_batch_that_need_no_more():
    """A text with the teacher's vector has no positive, also where another task does."""
    torch.manual_seed(0)
    anchors, taught = torch.randn(2, 3, 4)
    tasks = [Task("pair", "", (InfoNCE(),)), Task("text", "", (TeacherCosine(weight=2.0),))]
    labels = torch.cat([torch.tensor([[1, NAN]] * 3), taught], dim=1)
    loss = DLELoss(model=None, tasks=tasks).compute_loss_from_embeddings([anchors], labels)
    expected = 2 * (1 - cosine_similarity(anchors, taught)).mean()
    assert loss["pair_info_nce"] == 0
    torch.testing.assert_close(loss["text_teacher_cosine"], expected)
    with pytest.raises(ValueError, match=r"an anchor and 2 positive column\(s\), got 2"):
        DLELoss(None, tasks, num_positives=2).compute_loss_from_embeddings([anchors, anchors], labels[:, :2])
    labels[1, 0] = 0
    with pytest.raises(ValueError, match=r"an anchor and 1 positive column\(s\), got 1"):
        DLELoss(model=None, tasks=tasks).compute_loss_from_embeddings([anchors], labels)
    for task in (2, -1, NAN):
        labels[:, 0] = torch.tensor([1, task, 1])
        with pytest.raises(ValueError, match="labels name tasks 0 to 1, got"):
            DLELoss(model=None, tasks=tasks).compute_loss_from_embeddings([anchors], labels)


def test_scores_are_asked_for_where_they_are_needed():
    assert [task.needs_score for task in VIPOLYQWEN_TASKS] == [True, False, False, False, False]
    assert {type(term) for term in VIPOLYQWEN_TASKS[0].terms} == {InfoNCE, ScoreMSE, PairwiseRank}


BALANCED = LABELS[:10].clone()
BALANCED[3, 0] = 3  # a task that only the first process has rows of, and one that only the second has


def balanced_steps(columns, labels, gather):
    """For each strategy: the gradients of some steps, and the state after them."""
    found = {}
    for name in BALANCES:
        strategy = DynamicWeightAverage(every=1) if name == "dynamic_weight_average" else name
        negatives = "batch" if name == "pc_grad" else "task"
        loss = DLELoss(None, negatives=negatives, gather_across_devices=gather, balance=strategy).double()
        loss.balance.start()
        gradients = []
        for step in range(3 if loss.balance.state_dict() else 1):
            torch.manual_seed(step)
            own = [(column + step * columns[1]).detach().requires_grad_() for column in columns]
            loss.zero_grad()
            sum(loss.compute_loss_from_embeddings(own, labels).values()).backward()
            gradients.append([column.grad for column in own])
            with torch.no_grad():
                for parameter in loss.parameters():
                    parameter -= 0.3 * parameter.grad
            loss.balance.step()
        found[name] = gradients, loss.balance.state()["values"]
    return found


def run_rank(rank, folder, vectors):
    with gloo(rank, folder):
        rows = slice(5 * rank, 5 * rank + 5)
        own = [v[rows].detach().requires_grad_() for v in vectors]
        components = DLELoss(None, gather_across_devices=True).compute_loss_from_embeddings(own, LABELS[:10][rows])
        sum(components.values()).backward()
        result = {name: value.item() for name, value in components.items()}, [v.grad for v in own]
        torch.save(result, f"{folder}/rank{rank}")
        torch.save(balanced_steps([v[rows] for v in vectors], BALANCED[rows], True), f"{folder}/balanced{rank}")
        loss = DLELoss(None, balance="equal_gradient_norm")
        loss.compute_loss_from_embeddings(own, BALANCED[rows])
        torch.save([float(total) for total, _ in loss.balance.take_log().values()], f"{folder}/weights{rank}")


def test_two_processes_equal_one_with_the_joint_batch(vectors, tmp_path):
    joint = [v[:10].detach().requires_grad_() for v in vectors]
    components = DLELoss(None).compute_loss_from_embeddings(joint, LABELS[:10])
    sum(components.values()).backward()
    on_two(run_rank, str(tmp_path), [v.detach() for v in vectors])
    (first, first_grads), (second, second_grads) = (torch.load(tmp_path / f"rank{rank}") for rank in (0, 1))
    for name, value in components.items():
        assert (first[name] + second[name]) / 2 == pytest.approx(value.item(), rel=1e-9), name
    for own, other, whole in zip(first_grads, second_grads, joint, strict=True):
        torch.testing.assert_close(torch.cat([own, other]) / 2, whole.grad)

    first, second = (torch.load(tmp_path / f"balanced{rank}") for rank in (0, 1))
    for case, (gradients, state) in balanced_steps([v.detach()[:10] for v in vectors], BALANCED, False).items():
        for step, expected in enumerate(gradients):
            for own, other, whole in zip(first[case][0][step], second[case][0][step], expected, strict=True):
                torch.testing.assert_close(torch.cat([own, other]) / 2, whole, msg=lambda m, case=case: f"{case}: {m}")
        for values in (first[case][1], second[case][1]):
            for name, expected in state.items():
                assert values[name] == pytest.approx(expected, rel=1e-9), (case, name)
        assert first[case][1] == second[case][1]

    # Without gathering: norms of the gradients of both processes together.
    norms = 0
    for rows in (slice(0, 5), slice(5, 10)):
        own = [v.detach()[rows].requires_grad_() for v in vectors]
        parts = DLELoss(None).compute_loss_from_embeddings(own, BALANCED[rows]).values()
        grads = [torch.cat(torch.autograd.grad(part, own, retain_graph=True)) for part in parts]
        norms = norms + torch.stack([grad.square().sum() for grad in grads])
    norms = norms.sqrt()
    expected = torch.where(norms > 0, norms.sum() / (norms > 0).sum() / norms, 1.0)
    present = [any(BALANCED[:10, 0] == number) for number, task in enumerate(VIPOLYQWEN_TASKS) for _ in task.terms]
    for rank in (0, 1):
        assert torch.load(tmp_path / f"weights{rank}") == pytest.approx((expected * torch.tensor(present)).tolist())
