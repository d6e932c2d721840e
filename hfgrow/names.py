"""The names of the files that a model folder has."""

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CARD = "README.md"
MANIFEST = "hfgrow.json"
PICTURE = "layers.svg"
# The loss of a training, drawn where matplotlib is installed.
LOSS_PICTURE = "loss.png"
# The folder of the finished model in that of its run.
TRAINED = "final"
# What a run was begun with, in its folder: as it is compared, and as a recipe.
RUN = "run.json"
RECIPE = "recipe.yaml"
# Where the base lies on this machine; stays beside the model and is never pushed.
LOCAL_BASE = ".hfgrow-base"
