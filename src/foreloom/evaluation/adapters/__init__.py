"""Other people's models as forecasters, so that one evaluation scores them beside ours."""
