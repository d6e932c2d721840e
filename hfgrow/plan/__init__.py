"""What a model is and what it becomes, as plain data: no file is opened here."""
