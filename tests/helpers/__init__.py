"""What several test files share: engines, pages, models, hostile input and fault injection."""
