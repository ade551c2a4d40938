"""What the server of `test_faults.py` does before it forks anything, so that a process costs a second and not ten."""

import threading

from sentence_transformers import SentenceTransformer
from tqdm import tqdm
from transformers import Qwen2VLModel, XLMRobertaModel  # noqa: F401  (imported when they are first used)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from tests.trust import lives  # noqa: F401

get_checkpoint_conversion_mapping("xlm-roberta")  # makes the table of all models
SentenceTransformer._create_model_card = lambda *args: None  # most of the time of a checkpoint; nothing is read from it
tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a killed process leaves behind
