"""Where numbers are computed: everything else in the checkpoint is copied."""
