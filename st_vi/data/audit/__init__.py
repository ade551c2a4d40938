"""What is wrong with a data set before anything is trained on it: leaks, labels, weak preferences, poor negatives."""

from st_vi.data.audit.leakage import Leak, LeakageReport, leakage_report, without_leakage
from st_vi.data.audit.noisy_labels import LabelSuspect, ScoreSuspect, label_suspects, score_suspects
from st_vi.data.audit.preferences import PreferenceStrength, flip_rows, preference_strength
from st_vi.data.audit.quality import ECI, eci, eci_from_similarities

__all__ = [
    "ECI",
    "LabelSuspect",
    "Leak",
    "LeakageReport",
    "PreferenceStrength",
    "ScoreSuspect",
    "eci",
    "eci_from_similarities",
    "flip_rows",
    "label_suspects",
    "leakage_report",
    "preference_strength",
    "score_suspects",
    "without_leakage",
]
