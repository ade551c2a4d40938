"""What the server of `tests.helpers.processes` imports before it forks anything."""

import torch
from transformers import Qwen2VLModel, XLMRobertaModel  # noqa: F401  (imported when they are first used)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

from tests.trust import lives  # noqa: F401

get_checkpoint_conversion_mapping("xlm-roberta")  # makes the table of all models
torch.set_num_threads(1)
