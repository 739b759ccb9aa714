"""Programs for those who work on pacsbridge."""
